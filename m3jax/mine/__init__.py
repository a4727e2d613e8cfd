"""Better training data from a model: hard negatives, and a teacher's scores."""
