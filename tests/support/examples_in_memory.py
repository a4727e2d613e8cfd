"""Examples and their sizes without a file, for tests of plans and batches."""

import dataclasses
from typing import Any

import numpy as np

SENTENCES = [
    "the encoder reads the text",
    "ein kurzer Satz",
    "several words make a longer sentence than the others in this list",
    "où est la gare",
    "M3 turns a text into three representations at once",
]


@dataclasses.dataclass(frozen=True)
class Example:
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    negative_scores: tuple[float, ...] | None = None
    prompt: str = ""


@dataclasses.dataclass(frozen=True)
class InMemory:
    """What `open_examples` gives, from a list."""

    examples: list[Example]
    offsets: Any
    lengths: Any
    positives: Any
    source_ids: Any
    flags: Any
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def in_memory(examples, tokenizer=None, source_ids=None, sources=("one",)) -> InMemory:
    """Sizes by the tokenizer, or two tokens more than words."""

    def tokens(texts):
        if tokenizer is None:
            return [len(text.split()) + 2 for text in texts]
        return [len(ids) for ids in tokenizer.encode(texts, 100_000)]

    texts = [[e.prompt + e.query, *e.positives, *e.negatives] for e in examples]
    counts = [len(t) for t in texts]
    flags = [1 + 2 * (e.positive_scores is not None) for e in examples]
    return InMemory(
        list(examples),
        np.cumsum([0, *counts]),
        np.array([n for t in texts for n in tokens(t)], np.int32),
        np.array([len(e.positives) for e in examples], np.int32),
        np.array([0] * len(examples) if source_ids is None else source_ids, np.uint16),
        np.array(flags, np.uint8),
        sources,
    )


def make_examples(count: int, negatives: int = 0, longest: int = 3, seed: int = 0, scored=False):
    """Queries and passages of one to `longest` sentences, each passage its own."""
    rng = np.random.default_rng(seed)

    def text(tag):
        return " ".join([tag, *rng.choice(SENTENCES, int(rng.integers(1, longest + 1)))])

    made = []
    for i in range(count):
        others = tuple(text(f"negative {i} {j}") for j in range(negatives))
        scores = (tuple(rng.normal(size=2)), tuple(rng.normal(size=negatives)))
        given = scores if scored else (None, None)
        made.append(Example(text(f"query {i}"), (text(f"a {i}"), text(f"b {i}")), others, *given))
    return made
