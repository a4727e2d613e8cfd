"""Files of results."""

import json

from m3jax.evaluate import results
from m3jax.evaluate.results import EvaluationResult


def test_a_result_of_the_former_name_of_colbert_is_reused(tmp_path):
    former = results.path_of(tmp_path, "task", "", "multivector", {"top_k": 10})
    path = results.path_of(tmp_path, "task", "", "colbert", {"top_k": 10})
    assert former != path
    result = EvaluationResult(
        task="task",
        family="task",
        query_set="",
        language="en",
        method="multivector",
        primary="nDCG@10",
        queries=["q1"],
        languages=["en"],
        values={"nDCG@10": [0.5]},
        protocol={"top_k": 10},
        seconds=0.1,
    )
    former.parent.mkdir(parents=True, exist_ok=True)
    results.write(former, result)
    assert json.loads(former.read_text())["method"] == "multivector"
    assert results.path_of(tmp_path, "task", "", "colbert", {"top_k": 10}) == former
    read = results.read(former)
    assert read is not None and read.method == "colbert"
