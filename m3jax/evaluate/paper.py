"""Results of the M3-Embedding paper, in percent.

Chen, Xiao, Zhang, Luo, Lian, Liu: M3-Embedding. Findings of ACL 2024; arXiv 2402.03216v4. MIRACL
dev (tables 1, 12), MKQA (2, 13), MLDR test (3), NarrativeQA (4). BM25 is
over the tokens of XLM-R. Earlier versions of the paper have lower MIRACL figures: they removed the
passage with the query's id from the ranking.
"""

from collections.abc import Sequence

CITATION = "Chen et al., M3-Embedding, Findings of ACL 2024 (arXiv 2402.03216v4)"

METHODS = ("bm25", "dense", "sparse", "colbert", "dense+sparse", "all")

# (benchmark, measure) -> the average over languages, in the order of METHODS.
AVERAGES: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("miracl", "nDCG@10"): (31.9, 69.2, 53.9, 70.5, 70.4, 71.5),
    ("miracl", "Recall@100"): (67.3, 95.5, 85.6, 96.3, 96.2, 96.4),
    ("mkqa", "Recall@100"): (39.9, 75.1, 45.3, 75.3, 75.3, 75.5),
    ("mkqa", "Recall@20"): (28.1, 67.8, 36.3, 68.4, 68.1, 68.8),
    ("mldr", "nDCG@10"): (53.6, 52.5, 62.2, 57.6, 64.8, 65.0),
    ("narrativeqa", "nDCG@10"): (None, 48.7, 57.5, 55.4, 60.1, 61.7),
}

COUNTS = {"miracl": 18, "mkqa": 25, "mldr": 13}  # languages behind an average; MKQA's without en
LANGUAGES = tuple("ar bn en es fa fi fr hi id ja ko ru sw te th zh de yo".split())  # of MIRACL
_MIRACL = {
    "dense": "78.4 80.0 56.9 56.1 60.9 78.6 58.3 59.5 56.1 72.8 69.9 70.1 78.7 86.2 82.6 62.7 56.7 "
    "81.8",
    "sparse": "67.1 68.9 43.8 38.6 45.1 65.4 35.3 48.2 48.9 56.1 61.5 44.5 57.9 79.1 70.9 36.1 "
    "32.5 70.0",
    "colbert": "79.6 81.0 59.3 57.8 62.0 80.1 59.4 61.5 58.3 74.5 71.2 71.2 79.1 87.9 83.0 "
    "63.7 58.0 82.4",
    "dense+sparse": "79.6 80.7 58.8 58.1 62.3 79.7 58.0 62.9 58.3 73.9 71.2 69.8 78.5 87.2 83.1 "
    "63.5 57.7 83.3",
    "all": "80.2 81.5 59.6 59.7 63.4 80.4 61.2 63.3 59.0 75.2 72.1 71.7 79.6 88.1 83.7 64.9 59.8 "
    "83.5",
}


def average(name: str, measure: str, method: str) -> float | None:
    """The paper's average over languages, or None if it has none."""
    row = AVERAGES.get((name, measure))
    return row[METHODS.index(method)] if row and method in METHODS else None


def mean(name: str, tasks: Sequence[str], measure: str, method: str) -> float | None:
    """The mean of the paper's figures for these tasks; for all of its languages the average that it
    publishes; None if a figure is missing."""
    if len(set(tasks)) == COUNTS.get(name) and "mkqa/en" not in tasks:
        return average(name, measure, method)
    known = [figure for task in tasks if (figure := of_task(task, measure, method)) is not None]
    return sum(known) / len(known) if known and len(known) == len(tasks) else None


def of_task(name: str, measure: str, method: str) -> float | None:
    """The paper's figure for one task (miracl/de, narrativeqa), or None if it is not listed."""
    benchmark, _, language = name.partition("/")
    if not language:
        return average(name, measure, method)
    if (benchmark, measure) != ("miracl", "nDCG@10") or method not in _MIRACL:
        return None
    figures = map(float, _MIRACL[method].split())
    return {str(code): value for code, value in zip(LANGUAGES, figures, strict=True)}.get(language)
