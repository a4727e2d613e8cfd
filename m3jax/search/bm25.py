"""BM25, the baseline without a model: scored by bm25s, searched by the inverted index.

score = sum over the query's terms of idf * tf / (tf + k1 (1 - b + b length / mean length)),
Lucene's form, with Pyserini's k1 = 0.9 and b = 0.4, which the paper's baseline uses. Terms are

    tokens  the model's token ids without special tokens ("BM25 (XLM-R)" in the paper)
    words   runs of letters, marks and digits after NFKC, lower-cased. Scripts written without
            spaces (Han, kana, Thai, Lao, Khmer, Myanmar) give overlapping pairs of characters
"""

import dataclasses
import functools
import json
import logging
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from m3jax.io.atomic import new_directory
from m3jax.search import sparse
from m3jax.search.hits import Hits
from m3jax.search.options import check_engine
from m3jax.search.sparse import InvertedIndex, SparseRetriever
from m3jax.text.tokenizer import Tokenizer

K1, B = 0.9, 0.4
MAX_TOKENS = 8192  # of a document
CHUNK = 4096  # texts
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


@dataclasses.dataclass(frozen=True)
class Bm25:
    """Postings whose weights are BM25 scores; queries are strings."""

    postings: InvertedIndex
    vocabulary: dict[str, int] | None  # of words; None where terms are token ids
    tokenizer: Tokenizer | None
    engine: str = "auto"

    def __post_init__(self):
        check_engine("bm25", self.engine)

    def search(self, queries: Sequence[str], top_k: int) -> Hits:
        """The `top_k` documents of each query that share a term with it; repeated terms count."""
        return SparseRetriever(self.postings, self.engine).search(self._counts(queries), top_k)

    def scores(
        self, query: str, documents: Int[np.ndarray, " m"], *, exact: bool = False
    ) -> Float[np.ndarray, " m"]:
        """The scores of one query and some documents, always in float64; 0 where they share no
        term."""
        return SparseRetriever(self.postings).scores(self._counts([query]), documents)

    def error_bound(self, query: str) -> float:
        """0: `scores` are exact."""
        return 0.0

    def _counts(self, queries: Sequence[str]) -> scipy.sparse.csr_array:
        """How often each term occurs in each query [queries, terms]."""
        width = len(self.postings.offsets) - 1
        rows, columns, counts = [], [], []
        for row, terms in enumerate(_terms(queries, self.tokenizer, self.vocabulary, MAX_TOKENS)):
            frequencies = Counter(term for term in terms if 0 <= term < width)
            rows += [row] * len(frequencies)
            columns += frequencies.keys()
            counts += frequencies.values()
        return scipy.sparse.csr_array(
            (np.array(counts, np.float32), (np.array(rows, int), np.array(columns, int))),
            shape=(len(queries), width),
        )


def build(
    texts: Iterable[str], *, tokenizer: Tokenizer | None = None, k1: float = K1, b: float = B
) -> Bm25:
    """The index of all documents. Terms are the tokenizer's ids, or words without a tokenizer."""
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("BM25 needs bm25s: pip install 'm3jax[search]'") from error
    words: dict[str, int] | None = None if tokenizer else {}
    documents = [
        ids
        for chunk in _chunks(texts)
        for ids in _terms(chunk, tokenizer, words, MAX_TOKENS, grow=True)
    ]
    if not any(documents):
        raise ValueError("BM25 needs at least one document with a term")
    size = tokenizer.vocab_size if tokenizer else len(words or {})
    engine = bm25s.BM25(method="lucene", k1=k1, b=b)
    vocabulary = {str(i): i for i in range(size)}
    logging.getLogger("bm25s").setLevel(logging.ERROR)  # it logs each step as a warning
    engine.index((documents, vocabulary), show_progress=False)
    scores = engine.scores
    matrix = scipy.sparse.csc_array(
        (scores["data"], scores["indices"], scores["indptr"]),
        shape=(len(documents), len(scores["indptr"]) - 1),
    )
    rows = scipy.sparse.csr_array(matrix.astype(np.float32))
    return Bm25(sparse.build(lambda: [rows]), words, tokenizer)


def save(bm25: Bm25, output: Path) -> None:
    """Writes the index to a new directory, atomically."""
    with new_directory(output) as scratch:
        sparse.save(bm25.postings, scratch / "index")
        if bm25.vocabulary is not None:
            text = json.dumps(bm25.vocabulary, ensure_ascii=False)
            (scratch / "words.json").write_text(text, encoding="utf-8")


def load(directory: Path, tokenizer: Tokenizer | None = None) -> Bm25:
    """The index that `save` wrote, its postings memory-mapped."""
    words = directory / "words.json"
    vocabulary = json.loads(words.read_text(encoding="utf-8")) if words.is_file() else None
    return Bm25(sparse.load(directory / "index"), vocabulary, tokenizer)


def word_terms(text: str) -> list[str]:
    """The words of a text, as the module docstring defines them.

    >>> word_terms("Naïve cafés: 北京大学 2024")
    ['naïve', 'cafés', '北京', '京大', '大学', '2024']
    """
    terms: list[str] = []
    for word in _word_pattern().findall(unicodedata.normalize("NFKC", text).lower()):
        end = 0
        for run in _SPACELESS.finditer(word):
            terms += [word[end : run.start()]] if run.start() > end else []
            characters = run.group()
            pairs = [characters[i : i + 2] for i in range(len(characters) - 1)]
            terms += pairs or [characters]
            end = run.end()
        terms += [word[end:]] if end < len(word) else []
    return terms


def _terms(
    texts: Sequence[str],
    tokenizer: Tokenizer | None,
    words: dict[str, int] | None,
    max_tokens: int,
    grow: bool = False,
) -> list[list[int]]:
    """Term numbers of each text. New words are added to `words` with `grow`, and -1 without."""
    if tokenizer is not None:
        special = set(tokenizer.special_ids)
        encoded = tokenizer.encode(list(texts), max_tokens)
        numbers = _numbers(tokenizer.vocab_size)
        return [[numbers[i] for i in ids.tolist() if i not in special] for ids in encoded]
    assert words is not None
    if grow:
        return [[words.setdefault(w, len(words)) for w in word_terms(text)] for text in texts]
    return [[words.get(w, -1) for w in word_terms(text)] for text in texts]


@functools.cache
def _numbers(size: int) -> list[int]:
    """0 .. size - 1 as shared objects: a token of the corpus then costs 8 bytes instead of 40."""
    return list(range(size))


def _chunks(texts: Iterable[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """Runs of word characters and combining marks, which Python's \\w does not include."""
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in characters if unicodedata.category(c)[0] == "M")
    return re.compile(f"(?:[^\\W_]|[{marks}])+")
