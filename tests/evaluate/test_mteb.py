"""The encoder protocol, checked by mteb itself on a task held in memory."""

import numpy as np
import pytest
from support.tiny import TEXTS

from m3jax import M3Embedder

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'm3jax[mteb]'")

# mteb strips the documents it is given.
DOCUMENTS = {f"d{i}": text.strip() for i, text in enumerate(t for t in TEXTS if t.strip())}
QUERIES = {"q0": "the cat sat", "q1": "Die Katze", "q2": "emoji and a space", "q3": "many spaces"}
RELEVANT = {"q0": {"d0": 1}, "q1": {"d2": 1}, "q2": {"d5": 1}, "q3": {"d8": 1, "d0": 1}}


def make_task():
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Tiny(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="TinyRetrieval",
            description="A few sentences.",
            type="Retrieval",
            reference="https://example.org",
            dataset={"path": "NA", "revision": "NA"},
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=("2024-01-01", "2024-01-01"),
            domains=["Written"],
            task_subtypes=[],
            license="cc0-1.0",
            annotations_creators="derived",
            dialect=[],
            modalities=["text"],
            sample_creation="found",
            bibtex_citation="",
        )

        def load_data(self, num_proc=None, **kwargs):
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(
                            [{"id": i, "title": "", "text": t} for i, t in DOCUMENTS.items()]
                        ),
                        "queries": Dataset.from_list(
                            [{"id": i, "text": t} for i, t in QUERIES.items()]
                        ),
                        "relevant_docs": RELEVANT,
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Tiny()


@pytest.fixture
def prefixed(tiny):
    """The tiny model with E5's instructions."""
    return M3Embedder(
        tiny.encoder.model, query_instruction="query: ", passage_instruction="passage: "
    )


def test_mteb_accepts_the_model(prefixed):
    from mteb.models import EncoderProtocol

    from m3jax.evaluate import mteb_model

    model = mteb_model(prefixed)
    assert isinstance(model, EncoderProtocol)
    assert model.mteb_model_meta.name == "m3jax/tiny"
    assert model.mteb_model_meta.embed_dim == 32
    with pytest.raises(ValueError, match="owner/model"):
        mteb_model(prefixed, name="nameless")


@pytest.mark.filterwarnings("ignore")  # mteb's own
def test_mteb_measures_what_we_measure(prefixed):
    from m3jax.evaluate import mteb_model
    from m3jax.evaluate.metrics import as_run, means, per_query

    result = mteb.evaluate(mteb_model(prefixed), make_task(), cache=None, show_progress_bar=False)
    scores = result.task_results[0].scores["test"][0]

    documents = prefixed.encode_corpus(list(DOCUMENTS.values()))["dense_vecs"]
    queries = prefixed.encode_queries(list(QUERIES.values()))["dense_vecs"]
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    names = list(DOCUMENTS)
    run = as_run((q, [names[i] for i in row]) for q, row in zip(QUERIES, order, strict=True))
    ours = means(per_query(RELEVANT, run, ["nDCG@10", "Recall@1", "MAP@10", "MRR@10"]))
    assert 0 < ours["nDCG@10"] < 1
    for name, theirs in (
        ("nDCG@10", "ndcg_at_10"),
        ("Recall@1", "recall_at_1"),
        ("MAP@10", "map_at_10"),
        ("MRR@10", "mrr_at_10"),
    ):
        assert scores[theirs] == pytest.approx(ours[name], abs=1e-5), name


def test_prompt_type_chooses_instruction_and_length(tiny):
    from mteb.types import PromptType

    from m3jax.evaluate import mteb_model

    embedder = M3Embedder(
        tiny.encoder.model,
        query_instruction="query: ",
        passage_instruction="passage: ",
        query_max_length=8,
        passage_max_length=64,
    )
    model = mteb_model(embedder)
    batches = [{"text": TEXTS[:3]}, {"text": TEXTS[-1:]}]
    texts = [*TEXTS[:3], TEXTS[-1]]
    cases = {
        PromptType.query: ("query: ", 8),
        PromptType.document: ("passage: ", 64),
        None: ("query: ", 64),
    }
    vectors = {}
    for prompt_type, (prefix, length) in cases.items():
        got = model.encode(
            batches,
            task_metadata=None,
            hf_split="test",
            hf_subset="default",
            prompt_type=prompt_type,
            batch_size=2,
        )
        want = tiny.encode([prefix + t for t in texts], max_length=length)["dense_vecs"]
        np.testing.assert_allclose(got, want, atol=1e-5)
        vectors[prompt_type] = got
    similarity = model.similarity(vectors[None], vectors[PromptType.document])
    assert similarity.shape == (4, 4)
    pairs = model.similarity_pairwise(vectors[None], vectors[PromptType.document])
    np.testing.assert_allclose(np.diag(similarity), pairs, atol=1e-6)
