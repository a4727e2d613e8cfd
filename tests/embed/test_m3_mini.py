"""The model that ships: small, documented, and good at what it is for."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
from support.doc_blocks import ROOT, blocks

from m3jax import M3Embedder, pretrained
from m3jax.data.sample import sample_passages, sample_questions
from m3jax.embed.brute_force import scan

DIRECTORY = pretrained.resolve("m3-mini")


@pytest.fixture(scope="module")
def model():
    return M3Embedder.from_pretrained("m3-mini")


def test_it_is_small_and_has_a_card():
    size = sum(file.stat().st_size for file in DIRECTORY.rglob("*") if file.is_file())
    assert size <= 50e6
    card = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    for part in ("## Data", "## How it was made", "## Scores", "## Limits", "## Licence"):
        assert part in card


def test_every_head_finds_the_passage_of_a_question(model):
    questions = sample_questions()[::3]
    asked = {question.positive for question in questions}
    # Quickstart's test searches all of them.
    passages = [p for i, p in enumerate(sample_passages()) if p.id in asked or i % 3 == 0]
    sides = [[p.text for p in passages], [q.text for q in questions]]
    documents, queries = (
        next(model.encode_stream(side, max_length=256, chunk=len(side))) for side in sides
    )
    ids = [p.id for p in passages]
    right = np.array([ids.index(q.positive) for q in questions])
    assert model.encoder.model.fusion.keys() == {"dense+sparse", "all"}  # its own, not the paper's
    scores = scan(queries, documents, dataclasses.asdict(model.fusion("all")))
    first = {name: (table.argmax(1) == right).mean() for name, table in scores.items()}
    assert min(first.values()) > 0.75 and first["all"] > 0.85, first


def test_it_takes_long_texts_and_crosses_languages(model):
    assert model.config.encoder.max_length == 8192
    texts = [
        "The capital of France is Paris.",
        "Bananas are yellow.",
        "Wie heißt Frankreichs Hauptstadt?",
    ]
    vectors = model.encode(texts)["dense_vecs"]
    assert vectors[2] @ vectors[0] > vectors[2] @ vectors[1] + 0.05


def test_the_readmes_example_prints_what_it_says():
    code, shown = (blocks(ROOT / "README.md", kind)[0] for kind in ("python", "text"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.text, str(code), "exec"), {})
    assert said.getvalue().strip() == shown.text.strip()
