"""Published records become the examples a reader would make of them by hand."""

import gzip
import json

import pytest

from m3jax.cli.main import main
from m3jax.data import registry
from m3jax.data.examples import read_examples
from m3jax.io.jsonl import BadRecords

SQUAD = {
    "id": "57",
    "title": "Fox",
    "question": "Where?",
    "context": "In a den.",
    "answers": {"text": ["den"], "answer_start": [5]},
}
TYDI = {
    "query_id": "1",
    "query": "Nani?",
    "positive_passages": [{"docid": "9#1", "title": "Mtu", "text": "Huyu."}],
    "negative_passages": [{"docid": "9#2", "title": "", "text": "Yule."}],
}
# (source, a record as it is published, [(query, positives, negatives)])
CASES = [
    ("squad", SQUAD, [("Where?", ["In a den."], [])]),
    ("squad", SQUAD | {"answers": {"text": [], "answer_start": []}}, []),
    (
        "squad",
        {
            "title": "Fox",
            "paragraphs": [
                {
                    "context": "In a den.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where?",
                            "answers": [{"text": "den", "answer_start": 5}],
                        },
                        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        },
        [("Where?", ["In a den."], [])],
    ),
    ("miracl", TYDI, [("Nani?", ["Mtu Huyu."], ["Yule."])]),
    (
        "mldr",
        {
            "query_id": "q",
            "query": "Why?",
            "positive_passages": [{"docid": "d", "text": "Long."}],
            "negative_passages": [],
        },
        [("Why?", ["Long."], [])],
    ),
    (
        "nq",
        {
            "question": "who",
            "answers": ["x"],
            "positive_ctxs": [{"title": "T", "text": "x y"}],
            "negative_ctxs": [],
            "hard_negative_ctxs": [{"title": "U", "text": "z"}],
        },
        [("who", ["T x y"], ["U z"])],
    ),
    ("triviaqa", TYDI, [("Nani?", ["Mtu Huyu."], ["Yule."])]),
    (
        "hotpotqa",
        {
            "id": "5",
            "question": "Which?",
            "answer": "A",
            "supporting_facts": {"title": ["A", "B"], "sent_id": [0, 1]},
            "context": {
                "title": ["A", "B", "C"],
                "sentences": [["One.", " Two."], ["Three."], ["Four."]],
            },
        },
        [("Which?", ["A One. Two.", "B Three."], ["C Four."])],
    ),
    (
        "msmarco",
        {
            "query_id": 3,
            "query": "what",
            "answers": ["b"],
            "passages": {"is_selected": [0, 1], "passage_text": ["a", "b"], "url": ["u", "v"]},
        },
        [("what", ["b"], ["a"])],
    ),
    (
        "msmarco",
        {"query_id": 4, "query": "none", "passages": {"is_selected": [0], "passage_text": ["a"]}},
        [],
    ),
    ("nli", {"sent0": "a", "sent1": "b", "hard_neg": "c"}, [("a", ["b"], ["c"])]),
    ("nli-zh", {"sentence1": "甲", "sentence2": "乙", "label": 1}, [("甲", ["乙"], [])]),
    ("nli-zh", {"sentence1": "甲", "sentence2": "丙", "label": 0}, []),
    (
        "pubmedqa",
        {
            "pubid": 7,
            "question": "Does it?",
            "context": {"contexts": ["One.", "Two."], "labels": ["A", "B"]},
            "long_answer": "Yes.",
        },
        [("Does it?", ["One. Two."], [])],
    ),
    (
        "dureader",
        {
            "question_id": "q",
            "question": "问",
            "answer_paragraphs": [{"paragraph_id": "p", "paragraph_text": "答"}],
        },
        [("问", ["答"], [])],
    ),
    ("law-gpt", {"instruction": "问", "input": "", "output": "答"}, [("问", ["答"], [])]),
    ("xp3", {"inputs": "Translate: cat", "targets": "Katze"}, [("Translate: cat", ["Katze"], [])]),
    (
        "wikipedia",
        {"id": "1", "url": "u", "title": "Fox", "text": "A mammal."},
        [("Fox", ["A mammal."], [])],
    ),
    ("s2orc", {"title": "T", "abstract": "We show."}, [("T", ["We show."], [])]),
    ("s2orc", {"title": "T", "abstract": None}, []),
    (
        "nllb",
        {"translation": {"eng_Latn": "cat", "deu_Latn": "Katze"}, "laser_score": 1.1},
        [("cat", ["Katze"], [])],
    ),
    (
        "codesearchnet",
        {
            "func_documentation_string": "Adds.",
            "func_code_string": "def f(): ...",
            "language": "python",
        },
        [("Adds.", ["def f(): ..."], [])],
    ),
    ("training", {"query": "q", "pos": ["p"], "neg": ["n"]}, [("q", ["p"], ["n"])]),
]


@pytest.mark.parametrize(
    ("name", "record", "want"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_records_become_examples(name, record, want):
    source = registry.find(name)
    found = list(registry.examples_of(source, iter([("f:1", record)]), BadRecords(0)))
    assert [(e.query, list(e.positives), list(e.negatives)) for e in found] == want
    assert all(e.source == name for e in found)


def test_our_own_records_keep_all_their_fields():
    record = {
        "query": "q",
        "pos": ["p"],
        "neg": ["n"],
        "pos_scores": [2.0],
        "neg_scores": [1.0],
        "prompt": "as: ",
        "source": "mine",
        "in_batch": False,
        "id": None,
    }
    source = registry.find("training")
    (found,) = registry.examples_of(source, iter([("f:1", record)]), BadRecords(0))
    assert (found.positive_scores, found.negative_scores) == ((2.0,), (1.0,))
    assert (found.prompt, found.source, found.in_batch, found.id) == ("as: ", "mine", False, "")


def test_every_adapter_is_tried():
    tried = {registry.find(name).adapter for name, _, _ in CASES}
    assert tried == {source.adapter for source in registry.SOURCES}


def test_the_paper_s_sources_are_all_there():
    names = [source.name for source in registry.SOURCES]
    assert len(names) == len(set(names)) and {s.stage for s in registry.SOURCES} == set(
        ("pretrain", "finetune", "evaluate")
    )
    labelled = "hotpotqa triviaqa nq msmarco coliee pubmedqa squad nli dureader mmarco-zh t2ranking"
    others = "law-gpt cmedqa2 nli-zh lecardv2 miracl mr-tydi mldr"
    unlabelled = "mtp s2orc wikipedia xp3 mc4 cc-news nllb ccmatrix codesearchnet"
    assert set(f"{labelled} {others} {unlabelled}".split()) <= set(names)


def test_a_record_of_another_shape_is_named(caplog):
    rows = [("f:1", TYDI), ("f:2", SQUAD), ("f:3", SQUAD | {"question": " "})]
    squad = registry.find("squad")
    with pytest.raises(ValueError, match=r"f:1: not a record of squad: no field 'answers'"):
        list(registry.examples_of(squad, iter(rows), BadRecords(0)))
    bad = BadRecords(2)
    assert [e.query for e in registry.examples_of(squad, iter(rows), bad)] == ["Where?"]
    assert bad.count == 2
    with pytest.raises(KeyError, match="no source 'squid'; known: mtp"):
        registry.find("squid")


def run(*arguments):
    return main(["data", "convert", *map(str, arguments)])


def test_the_command_reads_a_published_file(tmp_path, capsys):
    article = CASES[2][1]
    (tmp_path / "train.json").write_text(json.dumps({"version": "1.1", "data": [article] * 3}))
    out = tmp_path / "out.jsonl.gz"
    assert (
        run(
            "--source",
            "squad",
            "--input",
            tmp_path / "train.json",
            "--output",
            out,
            "--language",
            "en",
        )
        == 0
    )
    assert "3 examples, 0 negatives" in capsys.readouterr().out
    (first, *_) = read_examples(out)
    assert (first.query, first.positives, first.lang, first.source) == (
        "Where?",
        ("In a den.",),
        "en",
        "squad",
    )
    assert run("--source", "squad", "--input", tmp_path / "train.json", "--output", out) == 1
    assert "already exists" in capsys.readouterr().err
    (tmp_path / "cut.json").write_text('{"data": [{"para')
    assert (
        run("--source", "squad", "--input", tmp_path / "cut.json", "--output", tmp_path / "x.jsonl")
        == 1
    )
    assert "cut.json is not valid JSON" in capsys.readouterr().err
    assert run("--source", "squad", "--output", tmp_path / "x.jsonl") == 1
    assert "exactly one of" in capsys.readouterr().err
    assert not list(tmp_path.glob("*x.jsonl*"))


def test_three_files_are_joined(tmp_path, capsys):
    (tmp_path / "q.tsv").write_text("1\tfirst\n2\tsecond\n3\tunjudged\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(5))
    )
    (tmp_path / "r.tsv").write_text("query-id\tcorpus-id\tscore\n1\td0\t1\n1\td3\t0\n2\td4\t2\n")
    files = [
        "--queries",
        tmp_path / "q.tsv",
        "--corpus",
        tmp_path / "c.jsonl",
        "--qrels",
        tmp_path / "r.tsv",
    ]
    assert run("--source", "t2ranking", *files, "--output", tmp_path / "o.jsonl") == 0
    found = [(e.query, e.positives, e.negatives) for e in read_examples(tmp_path / "o.jsonl")]
    assert found == [("first", ("text 0",), ("text 3",)), ("second", ("text 4",), ())]
    (tmp_path / "r.tsv").write_text("1\td9\t1\n")
    assert run("--source", "t2ranking", *files, "--output", tmp_path / "p.jsonl") == 1
    assert "lacks 1 judged texts, such as 'd9'" in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()


def test_what_tfds_prepared_is_read(tmp_path, monkeypatch):
    """TFDS gives bytes and arrays."""
    import numpy as np
    import tensorflow_datasets as tfds

    row = {
        "id": b"57",
        "question": "Où ?".encode(),
        "context": b"In a den.",
        "answers": {"text": np.array([b"den"], object)},
    }
    monkeypatch.setattr(tfds, "data_source", lambda *a, **k: [row])
    squad = registry.find("squad")
    (found,) = registry.examples_of(squad, registry.from_tfds(squad), BadRecords(0))
    assert (found.query, found.positives) == ("Où ?", ("In a den.",))
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="TFDS has no prepared squad/v1.1"):
        next(registry.from_tfds(squad, data_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="dureader is not in TFDS"):
        next(registry.from_tfds(registry.find("dureader")))


def test_the_registry_is_printed(capsys):
    assert main(["data", "sources", "--stage", "finetune", "--language", "zh", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} >= {"dureader", "t2ranking", "lecardv2"}
    assert all(row["stage"] == "finetune" for row in rows)
    assert main(["data", "sources", "mldr"]) == 0
    assert "41,434" in capsys.readouterr().out
    assert main(["data", "sources"]) == 0 and "codesearchnet" in capsys.readouterr().out
    assert main(["data", "sources", "nothing"]) == 1


def test_a_compressed_output_is_the_same_each_time(tmp_path):
    squad = registry.find("squad")
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        registry.convert(squad, iter([("f:1", SQUAD)]), tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert json.loads(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()))["query"] == "Where?"
