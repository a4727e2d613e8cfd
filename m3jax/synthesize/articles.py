"""Long articles, and the paragraphs that are drawn from them. [M3 app. A.2]

Everything is a function of the seed and of the article: whatever else is in the input, and in
whatever order, an article is drawn or not and gives the same paragraphs. Never imports JAX.
"""

import dataclasses
import heapq
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from m3jax.data.examples import OnBad, Paths, example_files, read_values, stem
from m3jax.data.lengths import measured
from m3jax.io.hashing import int_digest
from m3jax.io.jsonl import string_of, with_title
from m3jax.text.tokenizer import Tokenizer

# Characters that say about as much as three Latin letters.
_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_SENTENCE = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")
_LANGUAGE = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")
_PROSE = 0.6  # least share of letters and their marks; below it stand tables, formulas, lists


class Article(NamedTuple):
    """One long text; languages are "" where nobody said."""

    id: str
    title: str
    text: str
    lang: str
    source: str

    @property
    def whole(self) -> str:
        """Title and text, joined as a corpus joins them."""
        return with_title(self.title, self.text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which articles are asked about; None sets no limit."""

    min_chars: int = 2000
    max_chars: int | None = None
    min_tokens: int = 0  # with <s> and </s>, title included
    max_tokens: int | None = None
    languages: tuple[str, ...] = ()  # all, where empty
    per_language: int | None = None  # articles
    seed: int = 0

    def __post_init__(self):
        for unit in ("chars", "tokens"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least < 0 or (most is not None and most < least):
                raise ValueError(f"no length lies between {least} and {most} {unit}")
        if self.per_language is not None and self.per_language < 1:
            raise ValueError(f"articles a language must be at least 1, got {self.per_language}")


def read_articles(paths: Paths, on_bad: OnBad, language: str = "") -> Iterator[Article]:
    """{"text", "title"?, "id" or "_id"?, "lang"?, "source"?} of JSON Lines and Parquet files.

    Of a training example, {"query", "pos", ...}, the positives are articles. `language` is that
    of records that name none. Without an id, an article is named by a digest of its text.
    """
    for file in example_files(paths):
        for place, values in read_values(file, on_bad):
            try:
                yield from _articles(values, str(place), language, stem(file))
            except ValueError as error:
                on_bad(error)


def sample(
    articles: Iterable[Article],
    sampling: Sampling,
    left_out: Counter[str],
    tokenizer: Tokenizer | None = None,
) -> list[Article]:
    """The articles to ask about, in the order of the input; `left_out` counts the others.

    Held in memory: those that are drawn. Raises ValueError where two texts have one id, or where
    a limit in tokens has no tokenizer.
    """
    if tokenizer is None and (sampling.min_tokens or sampling.max_tokens is not None):
        raise ValueError("a length in tokens needs a tokenizer: name one, or limit the characters")
    fitting = _of_length(_distinct(articles, sampling, left_out), sampling, left_out, tokenizer)
    drawn: dict[str, list[tuple[int, int, Article]]] = {}
    for number, article in enumerate(fitting):
        kept = drawn.setdefault(article.lang, [])
        # The highest numbers leave first: the heap holds the smallest ones, negated.
        entry = (-digest(sampling.seed, article.id), -number, article)
        if sampling.per_language is None or len(kept) < sampling.per_language:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
            left_out["not drawn"] += 1
    found = sorted(itertools.chain(*drawn.values()), key=lambda entry: -entry[1])
    return [article for _, _, article in found]


def paragraphs(text: str, least: int = 300, most: int = 2000) -> list[str]:
    """Its paragraphs of `least` to `most` in `size`, in order; what is not prose is left out.

    Short lines (headings, turns of a conversation) are joined with what follows, long ones are cut
    between sentences, else between words.
    """
    found: list[str] = []
    held = ""
    for line in text.splitlines():
        for piece in _cut(line.strip(), most):
            if held and size(held) + size(piece) >= most:
                found.append(held)
                held = ""
            held = f"{held}\n{piece}" if held else piece
            if size(held) >= least:
                found.append(held)
                held = ""
    if held and found and size(found[-1]) + size(held) < most:
        found[-1] += f"\n{held}"
    return [p for p in found if size(p) >= least and _is_prose(p)]


def choose(article: Article, count: int, available: int, seed: int) -> list[int]:
    """`count` of the numbers below `available`, at random by seed and article, sorted."""
    order = sorted(range(available), key=lambda number: digest(seed, article.id, number))
    return sorted(order[:count])


def size(text: str) -> int:
    """Characters, each of Chinese, Japanese and Korean counted as three."""
    return len(text) + 2 * len(_WIDE.findall(text))


def sentences(text: str) -> list[str]:
    """A text cut behind full stops, question and exclamation marks, and at line ends."""
    parts = (part.strip() for line in text.splitlines() for part in _SENTENCE.split(line))
    return [part for part in parts if part]


def digest(*parts: object) -> int:
    """A 64-bit number of some values, the same on every machine."""
    return int_digest("\0".join(map(str, parts)), byteorder="big")


def _articles(
    values: dict[str, Any], place: str, language: str, file_stem: str
) -> Iterator[Article]:
    texts = [string_of(values, "text", place)]
    identity = values.get("id", values.get("_id"))
    if "text" not in values and "pos" in values:
        texts, identity = values["pos"], None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{place}: 'pos' must be a list of strings")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
        raise ValueError(f"{place}: the id must be a string or a number: {identity!r}")
    if isinstance(identity, str) and (not identity or set(identity) & set("\t\r\n")):
        raise ValueError(f"{place}: the id is empty or holds a tab or a line end: {identity!r}")
    title = string_of(values, "title", place).strip()
    lang = string_of(values, "lang", place) or language
    if lang and not _LANGUAGE.fullmatch(lang):  # it also names a directory
        raise ValueError(f"{place}: 'lang' must be a code such as en or zh-Hant, got {lang!r}")
    source = string_of(values, "source", place) or file_stem
    for text in texts:
        if not text.strip():
            raise ValueError(f"{place}: 'text' is missing or blank")
        name = f"{digest(title, text):016x}" if identity is None else str(identity)
        yield Article(name, title, text.strip(), lang, source)


def _distinct(
    articles: Iterable[Article], sampling: Sampling, left_out: Counter[str]
) -> Iterator[Article]:
    texts: set[int] = set()
    ids: dict[str, int] = {}
    for article in articles:
        if sampling.languages and article.lang not in sampling.languages:
            left_out["another language"] += 1
            continue
        text = digest(article.text)
        if ids.setdefault(article.id, text) != text:
            raise ValueError(
                f"two different articles have the id {article.id!r} (one in {article.source}): "
                "ids must be unique over all inputs; put the language or source in front of them"
            )
        if text in texts:
            left_out["duplicate"] += 1
            continue
        texts.add(text)
        yield article


def _of_length(
    articles: Iterable[Article],
    sampling: Sampling,
    left_out: Counter[str],
    tokenizer: Tokenizer | None,
) -> Iterator[Article]:
    fitting = _between(
        ((article, len(article.whole)) for article in articles),
        sampling.min_chars, sampling.max_chars, left_out,
    )  # fmt: skip
    if tokenizer is None:
        yield from fitting
        return
    counted = (
        (article, int(length[0]))
        for chunk, lengths in measured(fitting, lambda article: [article.whole], tokenizer)
        for article, length in zip(chunk, lengths, strict=True)
    )
    yield from _between(counted, sampling.min_tokens, sampling.max_tokens, left_out)


def _between(
    pairs: Iterable[tuple[Article, int]], least: int, most: int | None, left_out: Counter[str]
) -> Iterator[Article]:
    for article, length in pairs:
        if length < least:
            left_out["too short"] += 1
        elif most is not None and length > most:
            left_out["too long"] += 1
        else:
            yield article


def _cut(line: str, most: int) -> Iterator[str]:
    """A line in pieces below `most`, cut between sentences, else words, else anywhere."""
    if size(line) < most:
        if line:
            yield line
        return
    held = ""
    for sentence in _SENTENCE.split(line):
        parts = [sentence] if size(sentence) < most else _words(sentence, most // 4)
        for part in parts:
            if held and size(held) + size(part) >= most:
                yield held
                held = ""
            # Sentences of scripts without spaces join without one.
            glue = "" if not held or _WIDE.match(part) else " "
            held += glue + part
    if held:
        yield held


def _words(sentence: str, most: int) -> list[str]:
    step = max(most // 3, 1)
    return [
        word[start : start + step]
        for word in sentence.split()
        for start in range(0, len(word), step)
    ]


def _is_prose(text: str) -> bool:
    visible = [c for c in text if not c.isspace()]
    letters = sum(c.isalpha() or unicodedata.category(c)[0] == "M" for c in visible)
    return letters >= _PROSE * len(visible)
