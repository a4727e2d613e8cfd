"""BM25, the baseline without a model: scores by bm25s, searched like any lexical index.

score = sum over the query's terms of idf * tf / (tf + k1 (1 - b + b length / mean length)),
Lucene's form, with Pyserini's k1 = 0.9 and b = 0.4, which the paper's baseline uses. Terms are

    tokens  the model's token ids without special tokens ("BM25 (XLM-R)" in the paper)
    words   runs of letters, marks and digits after NFKC, lower-cased; scripts written without
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

from m3jax.io.atomic import new_directory
from m3jax.search import sparse
from m3jax.search.hits import Hits
from m3jax.search.sparse import InvertedIndex
from m3jax.text.tokenizer import Tokenizer

KINDS = ("tokens", "words")
K1, B = 0.9, 0.4
LONGEST = 8192  # tokens of a document that count
CHUNK = 4096
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


@dataclasses.dataclass(frozen=True)
class Bm25:
    """Postings whose weights are BM25 scores, and how a text becomes terms."""

    index: InvertedIndex
    vocabulary: dict[str, int] | None  # of words; None where terms are token ids
    tokenizer: Tokenizer | None

    def search(self, queries: Sequence[str], top_k: int) -> Hits:
        """The `top_k` documents of each query that share a term with it; repeated terms count."""
        return sparse.search(self._counts(queries), self.index, top_k)

    def scores_at(self, query: str, documents: np.ndarray) -> np.ndarray:
        """The float64 scores of one query with some documents, 0 where they share nothing."""
        return sparse.scores_at(self._counts([query]), 0, self.index, documents)

    def _counts(self, queries: Sequence[str]) -> scipy.sparse.csr_array:
        """How often each query has each term [queries, terms]."""
        width = len(self.index.offsets) - 1
        rows, columns, counts = [], [], []
        for row, terms in enumerate(_terms(queries, self.tokenizer, self.vocabulary, LONGEST)):
            seen = Counter(term for term in terms if 0 <= term < width)
            rows += [row] * len(seen)
            columns += seen.keys()
            counts += seen.values()
        return scipy.sparse.csr_array(
            (np.array(counts, np.float32), (np.array(rows, int), np.array(columns, int))),
            shape=(len(queries), width),
        )


def build(
    texts: Iterable[str], *, tokenizer: Tokenizer | None = None, k1: float = K1, b: float = B
) -> Bm25:
    """Scores all documents; with a tokenizer terms are its ids, without one they are words."""
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("BM25 needs bm25s: pip install 'm3jax[search]'") from error
    words: dict[str, int] | None = None if tokenizer else {}
    documents = [ids for chunk in _chunks(texts) for ids in _terms(chunk, tokenizer, words, LONGEST,
                                                                   grow=True)]  # fmt: skip
    if not any(documents):
        raise ValueError("BM25 needs at least one document with a term")
    size = tokenizer.vocab_size if tokenizer else len(words or {})
    engine = bm25s.BM25(method="lucene", k1=k1, b=b)
    vocabulary = {str(i): i for i in range(size)}
    logging.getLogger("bm25s").setLevel(logging.ERROR)  # it announces each step as a warning
    engine.index((documents, vocabulary), show_progress=False)
    scores = engine.scores
    matrix = scipy.sparse.csc_array(
        (scores["data"], scores["indices"], scores["indptr"]),
        shape=(len(documents), len(scores["indptr"]) - 1),
    )
    rows = scipy.sparse.csr_array(matrix.astype(np.float32))
    return Bm25(sparse.build(lambda: [rows]), words, tokenizer)


def save(bm25: Bm25, output: Path) -> None:
    """Writes it to a new directory, whole or not at all."""
    with new_directory(output) as scratch:
        sparse.save(bm25.index, scratch / "index")
        if bm25.vocabulary is not None:
            text = json.dumps(bm25.vocabulary, ensure_ascii=False)
            (scratch / "words.json").write_text(text, encoding="utf-8")


def load(directory: Path, tokenizer: Tokenizer | None = None) -> Bm25:
    """Reads it back, the postings memory-mapped."""
    words = directory / "words.json"
    vocabulary = json.loads(words.read_text(encoding="utf-8")) if words.is_file() else None
    return Bm25(sparse.load(directory / "index"), vocabulary, tokenizer)


def word_terms(text: str) -> list[str]:
    """The words of a text, as the module says.

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
    longest: int,
    grow: bool = False,
) -> list[list[int]]:
    """Term numbers of each text; with `grow` new words enter the vocabulary, else they are -1."""
    if tokenizer is not None:
        special = set(tokenizer.special_ids)
        encoded = tokenizer.encode(list(texts), longest)
        numbers = _numbers(tokenizer.vocab_size)
        return [[numbers[i] for i in ids.tolist() if i not in special] for ids in encoded]
    assert words is not None
    if grow:
        return [[words.setdefault(w, len(words)) for w in word_terms(text)] for text in texts]
    return [[words.get(w, -1) for w in word_terms(text)] for text in texts]


@functools.cache
def _numbers(size: int) -> list[int]:
    """0 .. size - 1, each once: a corpus's tokens refer to these, at 8 bytes instead of 40."""
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
    """Word characters and combining marks, which Python's \\w leaves out: they belong to words."""
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in characters if unicodedata.category(c)[0] == "M")
    return re.compile(f"(?:[^\\W_]|[{marks}])+")
