"""The paper's benchmarks from records of their published form."""

import re
import sys
import types
from typing import Any

import numpy as np
import pytest
from support.task_files import MKQA, write, write_task

from m3jax.evaluate.benchmarks import PROTOCOLS, load_tasks


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
    write(
        folder / "corpus.jsonl.gz",
        [{"docid": "doc-de-1", "text": "Lang."}, {"docid": "doc-de-2", "text": "Länger."}],
    )
    write(
        folder / "test.jsonl.gz",
        [
            {
                "query_id": "q-de-1",
                "query": "Wie lang?",
                "positive_passages": [{"docid": "doc-de-2", "text": "Länger."}],
                "negative_passages": [{"docid": "doc-de-1", "text": "Lang."}],
            }
        ],
    )
    (task,) = load_tasks("mldr/de", data=str(tmp_path))
    assert task.query_sets[0].qrels == {"q-de-1": {"doc-de-2": 1}}
    assert task.document_ids == ["doc-de-1", "doc-de-2"]
    assert (task.protocol.passage_length, task.protocol.weights) == (8192, "mldr")


def test_unknown_splits_and_layouts_of_a_benchmark_are_refused(tmp_path):
    for name, split in (("miracl/sw", "test"), ("mldr/de", "dev"), ("narrativeqa", "train")):
        with pytest.raises(ValueError, match="split, not on"):
            load_tasks(name, data=str(tmp_path), split=split)
    write_task(tmp_path / "mkqa" / "ja")
    with pytest.raises(ValueError, match="judged by answers"):
        load_tasks("mkqa/ja", data=str(tmp_path))


def test_mkqa_from_its_published_files(tmp_path):
    write(tmp_path / "mkqa.jsonl.gz", MKQA)
    write(
        tmp_path / "nq" / "corpus.jsonl",
        [{"_id": "doc0", "title": "Ada", "text": "A  “Countess” – of LOVELACE."}],
    )
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
    empty = {
        "query_id": "",
        "query": "",
        "query_metadata": "{}",
        "passage_id": "",
        "passage": "",
        "passage_metadata": "{}",
        "score": -1.0,
    }
    passages = [("d1", "A fox."), ("d2", "A dog.")]
    splits = {
        "query": [{"query_id": "q1", "query": "fox?"}],
        "passage": [
            {"passage_id": i, "passage": t, "passage_metadata": '{"title": "T"}'}
            for i, t in passages
        ],
        "test": [
            {
                "query_id": "q1",
                "query": "fox?",
                "passage_id": "d1",
                "passage": "A fox.",
                "score": 1.0,
            }
        ],
    }

    class Beir(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        __module__ = "beir"  # TFDS reads a dotted name as a package with resources
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


def test_the_hub_is_read_only_on_request(tmp_path, monkeypatch):
    """With both clients replaced: the repository, configuration, split and files that are read."""
    import huggingface_hub

    requests = []
    tables = {
        ("BeIR/toy", "corpus", "corpus"): [{"_id": "d1", "title": "T", "text": "A fox."}],
        ("BeIR/toy", "queries", "queries"): [{"_id": "q1", "title": "", "text": "fox?"}],
        ("BeIR/toy-qrels", None, "test"): [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
    }

    def load_dataset(repository, name, split, streaming):
        assert not streaming
        requests.append(repository)
        return tables[repository, name, split]

    def snapshot_download(repository, repo_type, allow_patterns):
        requests.append((repository, repo_type, *allow_patterns))
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
    requests.clear()
    (task,) = load_tasks("mldr/de", source="hub")
    assert task.query_sets[0].qrels == {"q": {"d": 1}}
    assert requests == [
        ("Shitao/MLDR", "dataset", "*mldr-v1.0-de/test.jsonl*"),
        ("Shitao/MLDR", "dataset", "*mldr-v1.0-de/corpus.jsonl*"),
    ]
    requests.clear()
    with pytest.raises(ValueError, match="name the source of"):
        load_tasks("mldr/de")
    assert not requests


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("nowhere", {}, "no task 'nowhere': neither a directory nor one of"),
        ("miracl/xx", {"data": "."}, "miracl has the languages ar bn en"),
        ("miracl/en", {}, "name the source of miracl/en: --data DIR"),
        ("mldr/en", {"data": "EMPTY"}, "hold no mldr-v1.0-en/test.jsonl"),
        ("mkqa/de", {"source": "tfds"}, "https://github.com/apple/ml-mkqa"),
        ("beir", {"data": "."}, "name a set of BEIR"),
    ],
)
def test_wrong_names_are_explained(tmp_path, spec, options, message):
    named: Any = {k: str(tmp_path) if v == "EMPTY" else v for k, v in options.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load_tasks(spec, **named)
