"""Training files and the losses of a run."""

import json

from support.examples_in_memory import make_examples

from m3jax.train.run_log import read_metrics


def write_examples(path, count=40, negatives=2):
    with open(path, "w", encoding="utf-8") as stream:
        for e in make_examples(count, negatives):
            row = {"query": e.query, "pos": list(e.positives), "neg": list(e.negatives)}
            stream.write(json.dumps(row) + "\n")


def losses(workdir):
    return [row["loss"] for row in read_metrics(workdir) if "loss" in row]
