"""Reports on disk: what is written is read back, readable or packed."""

import gzip
import json

import numpy as np
import pytest

from m3jax.evaluate import averages, report_files
from m3jax.evaluate.report import markdown, report_of, write_report
from m3jax.evaluate.results import EvaluationResult

SETS = [  # task, family, query set, languages of its queries
    ("squad/en", "squad", "", ["en"] * 6),
    ("squad/de", "squad", "", ["de"] * 6),
    ("cross", "cross", "fr", ["fr"] * 6),
    ("cross", "cross", "mixed", ["fr", "zh"] * 3),  # two languages in one set
    ("one", "one", "only", ["en"] * 6),  # a single set with a name
]


def results(seed=0):
    """Results of three methods on all sets; one method is missing on one set."""
    rng = np.random.default_rng(seed)
    return [
        EvaluationResult(
            task=task,
            family=family,
            query_set=query_set,
            language=languages[0],
            method=method,
            primary="nDCG@10",
            queries=[f"q{i}" for i in range(len(languages))],
            languages=languages,
            values={m: rng.random(len(languages)).tolist() for m in ("nDCG@10", "Recall@100")},
            protocol={
                "corpus": {"documents": 9, "hash": task},
                "queries": {"number": len(languages), "sampled_from": None, "hash": query_set},
                "model": "M",
                "weights": {"dense": 0.1 if method == "all" else 1.0},
                "warnings": [],
            },
            seconds=0.5,
        )
        for task, family, query_set, languages in SETS
        for method in ("bm25", "dense", "all")
        if (method, task) != ("all", "squad/de")
    ]


def report(seed=0):
    found = results(seed)
    return report_of(found, averages.summarise(found))


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_a_report_is_read_as_it_was_written(tmp_path, name):
    path, want = tmp_path / name, report()
    path.write_text("an older file")
    report_files.write(path, want)
    found = report_files.read(path)
    assert json.dumps(found) == json.dumps(want)  # the order of all keys too
    assert markdown(found) == markdown(want)


def test_a_packed_report_holds_no_repetition(tmp_path):
    packed = report_files.pack(report())
    assert len(packed["protocols"]) == 2  # with the weights of one method, and of the others
    fields = {field for result in packed["results"] for field in result["protocol"]}
    assert fields == {"corpus", "queries", "number"}
    mixed = [r["query_set"] for r in packed["results"] if r["by_language"] is not None]
    assert mixed == ["mixed"] * 3
    for rows in packed["averages"]["sets"].values():
        assert all(len(level) == 2 for row in rows.values() for level in row.values())
    for rows in packed["averages"]["tasks"].values():
        alone = {name for name, row in rows.items() if row is None}
        assert alone == {"squad/en", "squad/de"}


def test_levels_that_the_results_do_not_give_are_kept():
    odd = report()
    level = odd["averages"]["sets"]["nDCG@10"]["squad/en"]["dense"]
    level["value"] += 0.125
    odd["averages"]["tasks"]["nDCG@10"]["squad/de"]["bm25"]["parts"] = 2
    odd["results"][0]["by_language"] = {}
    assert report_files.unpack(json.loads(json.dumps(report_files.pack(odd)))) == odd


def test_equal_reports_are_equal_files(tmp_path):
    for folder in ("a", "b"):
        report_files.write(tmp_path / folder / f"{folder}.json.gz", report())
    first, second = ((tmp_path / f / f"{f}.json.gz").read_bytes() for f in ("a", "b"))
    assert first == second
    assert first[3] == 0 and first[4:8] == bytes(4)  # no file name, no time


def test_write_report_packs_on_request(tmp_path):
    write_report(tmp_path / "readable", results())
    write_report(tmp_path / "packed", results(), packed=True)
    assert [p.name for p in sorted((tmp_path / "packed").iterdir())] == [
        "results.json.gz",
        "results.md",
        "results.png",
    ]
    text = (tmp_path / "readable" / "results.json").read_text(encoding="utf-8")
    assert text == json.dumps(report(), indent=1, ensure_ascii=False) + "\n"
    assert report_files.read(tmp_path / "packed" / "results.json.gz") == json.loads(text)
    assert (tmp_path / "packed" / "results.md").read_bytes() == (
        tmp_path / "readable" / "results.md"
    ).read_bytes()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        report_files.read(tmp_path / "none.json.gz")
    (tmp_path / "other.json").write_text('{"format": "m3jax-stored-runs"}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("no JSON")
    for name in ("other", "list", "text"):
        with pytest.raises(ValueError):
            report_files.read(tmp_path / f"{name}.json")
    cut = gzip.compress(json.dumps(report()).encode())[:-20]
    (tmp_path / "cut.json.gz").write_bytes(cut)
    with pytest.raises(EOFError):
        report_files.read(tmp_path / "cut.json.gz")
