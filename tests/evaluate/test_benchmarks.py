"""Tasks from directories and the paper's benchmarks from records of their published shape."""

import re
import sys
import types
import unicodedata
from typing import Any

import numpy as np
import pytest
from support.task_files import HEADER, MKQA, write, write_task

from m3jax.evaluate import paper
from m3jax.evaluate.answer_recall import answer_recall, has_answer, plain
from m3jax.evaluate.benchmarks import LANGUAGES, PROTOCOLS, load_tasks
from m3jax.evaluate.tasks import read_tasks


def test_a_directory_is_a_task(tmp_path):
    write_task(tmp_path / "toy")
    (task,) = read_tasks(tmp_path / "toy")
    assert (task.name, task.family, task.warnings) == ("toy", "toy", ())
    assert task.document_ids == [f"d{i}" for i in range(6)]
    assert [r.text for r in task.documents()][:2] == ["text 0 of toy", "Title 1 text 1 of toy"]
    assert list(task.documents()) == list(task.documents())  # it can be read again
    (queries,) = task.query_sets
    assert queries.ids == ["q0", "q1", "q2"]  # q3 has no judgement
    assert queries.qrels == {f"q{i}": {f"d{i}": 1} for i in range(3)}


def test_several_query_sets_share_a_corpus(tmp_path):
    write_task(tmp_path / "cross", queries=("de", "pt-BR"))
    (task,) = read_tasks(tmp_path / "cross")
    assert [(s.name, s.language, s.ids[0]) for s in task.query_sets] == [
        ("de", "de", "q0de"),
        ("pt-BR", "pt-BR", "q0pt-BR"),
    ]


def test_folders_hold_families_of_tasks(tmp_path):
    for name in ("squad/en", "squad/de", "cross"):
        write_task(tmp_path / "eval" / name, suffix=".jsonl")
    names = [(t.name, t.family) for t in read_tasks(tmp_path / "eval")]
    assert names == [("cross", "cross"), ("squad/de", "squad"), ("squad/en", "squad")]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "squad")] == ["squad/de", "squad/en"]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "squad" / "en")] == ["squad/en"]
    assert [t.name for t in read_tasks(tmp_path / "eval" / "cross")] == ["cross"]


def test_the_digest_tells_corpora_apart(tmp_path):
    write_task(tmp_path / "a" / "same")
    write_task(tmp_path / "b" / "same", suffix=".jsonl")
    write_task(tmp_path / "c" / "same", documents=7)
    one, two, three = (read_tasks(tmp_path / n / "same")[0].digest for n in "abc")
    assert one == two != three


def test_a_sample_of_queries_is_always_the_same(tmp_path):
    write_task(tmp_path / "toy")
    first, again = (read_tasks(tmp_path / "toy", max_queries=2)[0] for _ in range(2))
    assert first.query_sets == again.query_sets
    (kept,) = first.query_sets
    assert len(kept.ids) == len(kept.texts) == 2 and set(kept.qrels) == set(kept.ids)
    assert kept.ids == sorted(kept.ids)


def test_judgements_of_absent_documents_are_counted(tmp_path, caplog):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / "qrels" / "test.tsv",
          HEADER + "q0\td0\t1\nq0\tlost\t1\nq1\tlost\t1\nq1\tgone\t1\nghost\td1\t1\n")  # fmt: skip
    (task,) = read_tasks(tmp_path / "toy")
    assert "names 2 documents that the corpus has not, such as 'gone'" in task.warnings[0]
    assert "judges 1 queries that queries.jsonl.gz has not; they count 0" in task.warnings[1]
    assert all(warning in caplog.text for warning in task.warnings)
    assert task.query_sets[0].qrels["q0"] == {"d0": 1, "lost": 1}


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("corpus.jsonl.gz", '{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}\n', ValueError,
         "corpus.jsonl.gz:3: the id 'a' stands there already, on line 1"),
        ("corpus.jsonl.gz", "\n", ValueError, "corpus.jsonl.gz holds no document"),
        ("corpus.jsonl.gz", '{"_id": "a"}\n', ValueError, ":1: 'text' is missing"),
        ("queries.jsonl.gz", '{"_id": "q0", "text": "x"}\n{"_id": "q1", "text": " "}\n', ValueError,
         "queries.jsonl.gz:2: query 'q1' has no text"),
        ("queries.jsonl.gz", '{"text": "x"}\n', ValueError, ":1: a query needs an _id"),
        ("queries.jsonl.gz", '{"_id": "zz", "text": "x"}\n', ValueError, "judges no query of"),
        ("queries.jsonl.gz", '{"_id": "q0", "text": "x"}\n' * 2, ValueError,
         ":2: query 'q0' stands"),
        ("queries.fr.jsonl.gz", '{"_id": "q0", "text": "x"}\n', FileNotFoundError,
         "test.fr.tsv is missing"),
        ("qrels/test.tsv", HEADER + "q0\td0\n", ValueError,
         "test.tsv:2: expected `query document grade`"),
    ],
)  # fmt: skip
def test_bad_tasks_are_refused(tmp_path, file, content, error, message):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / file, content)
    with pytest.raises(error, match=re.escape(message)):
        read_tasks(tmp_path / "toy")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("corpus.jsonl.gz", "holds no corpus.jsonl or corpus.jsonl.gz"),
        ("queries.jsonl.gz", "neither queries.jsonl nor queries.jsonl.gz"),
        ("qrels/test.tsv", "has no test.tsv but dev.tsv; name the split"),
    ],
)
def test_missing_files_are_named(tmp_path, file, message):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / "qrels" / "dev.tsv", HEADER + "q0\td0\t1\n")
    (tmp_path / "toy" / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read_tasks(tmp_path / "toy")


def test_the_split_can_be_named(tmp_path):
    write_task(tmp_path / "toy")
    write(tmp_path / "toy" / "qrels" / "dev.tsv", HEADER + "q3\td0\t1\n")
    (task,) = load_tasks(str(tmp_path / "toy"), split="dev")
    assert task.query_sets[0].ids == ["q3"]


def test_miracl_from_its_published_files(tmp_path):
    corpus = tmp_path / "miracl-corpus" / "miracl-corpus-v1.0-sw"
    write(corpus / "docs-0.jsonl.gz", [{"docid": "5#0", "title": "Ziwa", "text": "Maji."}])
    write(corpus / "docs-1.jsonl.gz", [{"docid": "7#2", "title": "", "text": "Mlima."}])
    files = tmp_path / "miracl" / "miracl-v1.0-sw"
    write(files / "topics" / "topics.miracl-v1.0-sw-dev.tsv", "12\tZiwa gani?\n13\tNani?\n")
    write(
        files / "qrels" / "qrels.miracl-v1.0-sw-dev.tsv",
        "12\tQ0\t5#0\t1\n12\tQ0\t7#2\t0\n14\tQ0\t9#9\t1\n",
    )
    (task,) = load_tasks("miracl/sw", data=str(tmp_path))
    assert [tuple(r[:2]) for r in task.documents()] == [("5#0", "Ziwa Maji."), ("7#2", "Mlima.")]
    assert task.query_sets[0].qrels == {"12": {"5#0": 1, "7#2": 0}, "14": {"9#9": 1}}
    assert "name 1 documents that the corpus has not, such as '9#9'" in task.warnings[0]
    assert "1 judged queries have no text; they count 0" in task.warnings[1]
    assert (task.query_sets[0].ids, task.query_sets[0].texts) == (["12"], ["Ziwa gani?"])
    assert task.protocol.passage_length == 512 and task.protocol.weights == "miracl"
    assert (task.name, task.family, task.query_sets[0].language) == ("miracl/sw", "miracl", "sw")


def test_mldr_from_its_published_files(tmp_path):
    folder = tmp_path / "mldr-v1.0-de"
    write(folder / "corpus.jsonl.gz", [{"docid": "doc-de-1", "text": "Lang."},
                                       {"docid": "doc-de-2", "text": "Länger."}])  # fmt: skip
    write(folder / "test.jsonl.gz", [{
        "query_id": "q-de-1", "query": "Wie lang?",
        "positive_passages": [{"docid": "doc-de-2", "text": "Länger."}],
        "negative_passages": [{"docid": "doc-de-1", "text": "Lang."}],
    }])  # fmt: skip
    (task,) = load_tasks("mldr/de", data=str(tmp_path))
    assert task.query_sets[0].qrels == {"q-de-1": {"doc-de-2": 1}}
    assert task.document_ids == ["doc-de-1", "doc-de-2"]
    assert (task.protocol.passage_length, task.protocol.weights) == (8192, "mldr")


def test_a_split_or_layout_that_a_benchmark_has_not_is_refused(tmp_path):
    for name, split in (("miracl/sw", "test"), ("mldr/de", "dev"), ("narrativeqa", "train")):
        with pytest.raises(ValueError, match="split alone, not on"):
            load_tasks(name, data=str(tmp_path), split=split)
    write_task(tmp_path / "mkqa" / "ja")
    with pytest.raises(ValueError, match="passages that hold an answer"):
        load_tasks("mkqa/ja", data=str(tmp_path))


def test_mkqa_from_its_published_files(tmp_path):
    write(tmp_path / "mkqa.jsonl.gz", MKQA)
    write(tmp_path / "nq" / "corpus.jsonl",
          [{"_id": "doc0", "title": "Ada", "text": "A  “Countess” – of LOVELACE."}])  # fmt: skip
    (task,) = load_tasks("mkqa/de", data=str(tmp_path))
    (queries,) = task.query_sets
    assert queries.ids == ["1", "5"] and queries.texts == ["Wer?", "Wann?"]
    assert queries.answers == {"1": ["Ada Lovelace", "Ada Byron"], "5": ["1843"]}
    assert next(task.documents()).text == 'ada a "countess" - of lovelace.'
    assert task.protocol.judged_by == "answers" and task.protocol.primary == "Recall@100"
    MKQA[0]["answers"]["en"][0]["type"] = 3
    write(tmp_path / "mkqa.jsonl.gz", MKQA)
    with pytest.raises(ValueError, match="answer types must be words"):
        load_tasks("mkqa/de", data=str(tmp_path))


def test_narrativeqa_from_records_of_the_hub(tmp_path):
    story = {"id": "s1", "kind": "gutenberg", "text": "Once.", "summary": {"text": "o"}}
    rows = [
        {"document": story, "question": {"text": q, "tokens": q.split()}, "answers": []}
        for q in ("Who ?", "Why ?")
    ]
    rows.append(rows[0] | {"document": story | {"id": "s2", "text": "Twice."}})
    write(tmp_path / "narrativeqa" / "test.jsonl", rows)
    (task,) = load_tasks("narrativeqa", data=str(tmp_path))
    assert [tuple(r[:2]) for r in task.documents()] == [("s1", "Once."), ("s2", "Twice.")]
    assert list(task.query_sets[0].qrels.values()) == [{"s1": 1}, {"s1": 1}, {"s2": 1}]
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    (tmp_path / "narrativeqa" / "test.jsonl").unlink()
    (tmp_path / "narrativeqa" / "data").mkdir()
    parquet.write_table(
        arrow.Table.from_pylist(rows),
        tmp_path / "narrativeqa" / "data" / "test-00000-of-00001.parquet",
    )
    assert load_tasks("narrativeqa", data=str(tmp_path))[0].digest == task.digest


def test_beir_and_prepared_folders_by_name(tmp_path):
    write_task(tmp_path / "scifact")
    (task,) = load_tasks("beir/scifact", data=str(tmp_path))
    assert task.name == "beir/scifact" and task.query_sets[0].ids == ["q0", "q1", "q2"]
    assert task.protocol == PROTOCOLS["beir"]
    write_task(tmp_path / "mldr" / "en")
    (task,) = load_tasks("mldr/en", data=str(tmp_path))
    assert (task.name, task.family, task.protocol) == ("mldr/en", "mldr", PROTOCOLS["mldr"])


def test_beir_from_tfds(tmp_path):
    """A data set with the splits and features of TFDS's builder `beir`, prepared here."""
    tfds = pytest.importorskip("tensorflow_datasets")
    text = tfds.features.Text()
    empty = {"query_id": "", "query": "", "query_metadata": "{}", "passage_id": "", "passage": "",
             "passage_metadata": "{}", "score": -1.0}  # fmt: skip
    passages = [("d1", "A fox."), ("d2", "A dog.")]
    splits = {
        "query": [{"query_id": "q1", "query": "fox?"}],
        "passage": [{"passage_id": i, "passage": t, "passage_metadata": '{"title": "T"}'}
                    for i, t in passages],
        "test": [{"query_id": "q1", "query": "fox?", "passage_id": "d1", "passage": "A fox.",
                  "score": 1.0}],
    }  # fmt: skip

    class Beir(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        name = "beir"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="toy_set")]

        def _info(self):
            features = {key: text for key in empty} | {"score": np.float32}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {name: self._generate_examples(rows) for name, rows in splits.items()}

        def _generate_examples(self, rows):
            for number, row in enumerate(rows):
                yield number, empty | row

    Beir(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    (task,) = load_tasks("beir/toy-set", source="tfds", data=str(tmp_path))
    assert {r.id: r.text for r in task.documents()} == {"d1": "T A fox.", "d2": "T A dog."}
    assert task.query_sets[0].qrels == {"q1": {"d1": 1}}
    with pytest.raises(FileNotFoundError, match="no prepared beir/other"):
        load_tasks("beir/other", source="tfds", data=str(tmp_path))
    with pytest.raises(ValueError, match="TFDS has no miracl"):
        load_tasks("miracl/en", source="tfds", data=str(tmp_path))


def test_the_hub_is_asked_for_what_is_needed_and_only_on_request(tmp_path, monkeypatch):
    """Both of its clients replaced: which repository, configuration, split and files are named."""
    import huggingface_hub

    asked = []
    tables = {
        ("BeIR/toy", "corpus", "corpus"): [{"_id": "d1", "title": "T", "text": "A fox."}],
        ("BeIR/toy", "queries", "queries"): [{"_id": "q1", "title": "", "text": "fox?"}],
        ("BeIR/toy-qrels", None, "test"): [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
    }

    def load_dataset(repository, name, split, streaming):
        assert not streaming
        asked.append(repository)
        return tables[repository, name, split]

    def snapshot_download(repository, repo_type, allow_patterns):
        asked.append((repository, repo_type, *allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (task,) = load_tasks("beir/toy", source="hub")
    assert next(task.documents()).text == "T A fox."
    assert task.query_sets[0].qrels == {"q1": {"d1": 1}}
    with pytest.raises(FileNotFoundError, match="'BeIR/gone-qrels' could not be read from the"):
        load_tasks("beir/gone", source="hub")

    folder = tmp_path / "snapshot" / "mldr-v1.0-de"
    write(folder / "corpus.jsonl.gz", [{"docid": "d", "text": "Lang."}])
    row = {"query_id": "q", "query": "Wie?", "positive_passages": [{"docid": "d", "text": ""}]}
    write(folder / "test.jsonl.gz", [row])
    asked.clear()
    (task,) = load_tasks("mldr/de", source="hub")
    assert task.query_sets[0].qrels == {"q": {"d": 1}}
    assert asked == [
        ("Shitao/MLDR", "dataset", "*mldr-v1.0-de/test.jsonl*"),
        ("Shitao/MLDR", "dataset", "*mldr-v1.0-de/corpus.jsonl*"),
    ]
    asked.clear()
    with pytest.raises(ValueError, match="say where"):
        load_tasks("mldr/de")
    assert not asked


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("nowhere", {}, "no task 'nowhere': not a directory, nor one of"),
        ("miracl/xx", {"data": "."}, "miracl has the languages ar bn en"),
        ("miracl/en", {}, "say where miracl/en is: --data DIR"),
        ("mldr/en", {"data": "EMPTY"}, "hold no mldr-v1.0-en/test.jsonl"),
        ("mkqa/de", {"source": "tfds"}, "https://github.com/apple/ml-mkqa"),
        ("beir", {"data": "."}, "name a set of BEIR"),
    ],
)
def test_wrong_names_are_explained(tmp_path, spec, options, message):
    named: Any = {k: str(tmp_path) if v == "EMPTY" else v for k, v in options.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load_tasks(spec, **named)


def test_the_papers_figures_agree_with_their_averages():
    for method in paper.METHODS[1:]:
        figures = [paper.of_task(f"miracl/{c}", "nDCG@10", method) for c in LANGUAGES["miracl"]]
        assert np.mean([f for f in figures if f is not None]) == pytest.approx(
            paper.average("miracl", "nDCG@10", method), abs=0.06
        )
    assert paper.of_task("narrativeqa", "nDCG@10", "all") == 61.7
    assert paper.of_task("mldr/de", "nDCG@10", "all") is None  # only its average is here
    assert paper.average("xquad", "nDCG@10", "all") is None


def test_the_papers_languages_are_all_there():
    assert {name: len(codes) for name, codes in LANGUAGES.items()} == {
        "miracl": 18, "mkqa": 26, "mldr": 13,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("passage", "answers", "found"),
    [
        ("The catalog is new.", ["cat"], False),  # no part of a token
        ("The CAT sat.", ["cat sat"], True),
        ("The cat, sat.", ["cat sat"], False),  # the comma is a token
        ("In 1,843 ways", ["1,843"], True),
        ("caf\u00e9 noir", ["Cafe\u0301"], True),  # the same in NFD
        ("anything", ["", " ", "\u200b"], False),  # nothing to look for
        ("", ["a"], False),
        ("ไทย คือ", ["คือ"], True),
        ("a b c", ["x", "b c"], True),
    ],
)
def test_answers_are_matched_token_by_token(passage, answers, found):
    assert has_answer(passage, answers) is found


def test_matching_equals_a_search_token_by_token():
    """The oracle: characters classed one by one, lists of tokens compared in every place."""

    def split(text):
        out, word = [], ""
        for char in unicodedata.normalize("NFD", text).lower():
            kind = unicodedata.category(char)[0]
            if kind in "LNM":
                word += char
                continue
            out, word = [*out, word] if word else out, ""
            out = out if kind in "ZC" else [*out, char]
        return [*out, word] if word else out

    rng = np.random.default_rng(0)
    alphabet = list("ab1 .,é\u0301\u200b\t-中Ａ")
    hits = 0
    for _ in range(3000):
        passage = "".join(rng.choice(alphabet, rng.integers(0, 25)))
        answer = "".join(rng.choice(alphabet, rng.integers(0, 4)))
        a, b = split(answer), split(passage)
        want = bool(a) and any(b[i : i + len(a)] == a for i in range(len(b)))
        assert has_answer(passage, [answer]) == want, (passage, answer)
        hits += want
    assert 300 < hits < 2700


def test_recall_asks_for_any_answer_in_any_passage():
    texts = {f"d{i}": f"passage {i}" for i in range(150)}
    rankings = {"q1": list(texts), "q2": list(texts)[::-1], "q4": []}
    answers = {"q1": ["150", "passage 20"], "q2": ["passage 149"], "q3": ["passage"], "q4": ["0"]}
    values = answer_recall(rankings, answers, texts.__getitem__)
    assert values == {
        "Recall@20": {"q1": 0.0, "q2": 1.0, "q3": 0.0, "q4": 0.0},  # passage 20 is the 21st
        "Recall@100": {"q1": 1.0, "q2": 1.0, "q3": 0.0, "q4": 0.0},
    }


def test_plain_text_keeps_every_letter():
    assert plain("“Ça” – va…\u00a0\tОК ’s 中文\x00!") == '"ça" - va... ок \'s 中文 !'
