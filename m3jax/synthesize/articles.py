"""Long articles, their paragraphs, and random samples of both. [M3 app. A.2]

Samples are functions of the seed and the article: whether an article is drawn, and which of its
paragraphs, does not depend on the order of the input; paragraphs do not depend on other articles.
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

# Characters that carry about as much information as three Latin letters.
_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_SENTENCE = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")
_LANGUAGE = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")
_PROSE = 0.6  # least share of letters and their marks; lower in tables, formulas and lists


class Article(NamedTuple):
    """One long text; `lang` is "" if it is unknown."""

    id: str
    title: str
    text: str
    lang: str
    source: str

    @property
    def document(self) -> str:
        """Title and text, joined as in a corpus."""
        return with_title(self.title, self.text)


class SourceParagraph(NamedTuple):
    """A paragraph about which a question is asked."""

    article: Article
    paragraphs: tuple[str, ...]  # of the article
    number: int  # of the paragraph

    @property
    def text(self) -> str:
        return self.paragraphs[self.number]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArticleSampling:
    """Which articles are used; None sets no limit.

    Raises ValueError for an empty range and for a count below 1.
    """

    min_chars: int = 2000
    max_chars: int | None = None
    min_tokens: int = 0  # with <s> and </s>, title included
    max_tokens: int | None = None
    languages: tuple[str, ...] = ()  # (): all
    per_language: int | None = None  # articles
    seed: int = 0

    def __post_init__(self):
        for unit in ("chars", "tokens"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least < 0 or (most is not None and most < least):
                raise ValueError(f"no length is between {least} and {most} {unit}")
        if self.per_language is not None and self.per_language < 1:
            raise ValueError(f"articles per language must be at least 1, got {self.per_language}")


def read_articles(paths: Paths, on_bad: OnBad, language: str = "") -> Iterator[Article]:
    """{"text", "title"?, "id" or "_id"?, "lang"?, "source"?} of JSON Lines and Parquet files.

    The positives of a training example, {"query", "pos", ...}, are articles. `language` is the
    default for records without "lang". An article without an id gets a hash of its text as id.
    """
    for file in example_files(paths):
        for place, values in read_values(file, on_bad):
            try:
                yield from _articles(values, str(place), language, stem(file))
            except ValueError as error:
                on_bad(error)


def sample_articles(
    articles: Iterable[Article],
    sampling: ArticleSampling,
    excluded: Counter[str],
    tokenizer: Tokenizer | None = None,
) -> list[Article]:
    """A sample of articles, in the order of the input; `excluded` counts the others by reason.

    Only the sample is kept in memory. Raises ValueError if two different texts have the same id,
    and for a limit in tokens without a tokenizer.
    """
    if tokenizer is None and (sampling.min_tokens or sampling.max_tokens is not None):
        raise ValueError("a length in tokens needs a tokenizer: name one, or limit the characters")
    fitting = _of_length(_distinct(articles, sampling, excluded), sampling, excluded, tokenizer)
    drawn: dict[str, list[tuple[int, int, Article]]] = {}
    for number, article in enumerate(fitting):
        kept = drawn.setdefault(article.lang, [])
        # A heap of the smallest hashes, negated: the largest hash is replaced first.
        entry = (-stable_hash(sampling.seed, article.id), -number, article)
        if sampling.per_language is None or len(kept) < sampling.per_language:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
            excluded["not drawn"] += 1
    entries = sorted(itertools.chain(*drawn.values()), key=lambda entry: -entry[1])
    return [article for _, _, article in entries]


def split_paragraphs(text: str, shortest: int = 300, longest: int = 2000) -> list[str]:
    """The paragraphs of a text, each `shortest` to `longest` in `text_size`, in order.

    Short lines (headings, turns of a conversation) are joined with the next ones; long ones are
    cut between sentences, else between words. Paragraphs that are not prose are dropped.
    """
    paragraphs: list[str] = []
    current = ""
    for line in text.splitlines():
        for part in _cut(line.strip(), longest):
            if current and text_size(current) + text_size(part) >= longest:
                paragraphs.append(current)
                current = ""
            current = f"{current}\n{part}" if current else part
            if text_size(current) >= shortest:
                paragraphs.append(current)
                current = ""
    if current and paragraphs and text_size(paragraphs[-1]) + text_size(current) < longest:
        paragraphs[-1] += f"\n{current}"
    return [p for p in paragraphs if text_size(p) >= shortest and _is_prose(p)]


def sample_numbers(article: Article, count: int, total: int, seed: int) -> list[int]:
    """`count` distinct numbers below `total`, sorted; random by seed and article id."""
    order = sorted(range(total), key=lambda number: stable_hash(seed, article.id, number))
    return sorted(order[:count])


def text_size(text: str) -> int:
    """The number of characters, where one of Chinese, Japanese or Korean counts as three."""
    return len(text) + 2 * len(_WIDE.findall(text))


def split_sentences(text: str) -> list[str]:
    """A text split after full stops, question and exclamation marks, and at line ends."""
    parts = (part.strip() for line in text.splitlines() for part in _SENTENCE.split(line))
    return [part for part in parts if part]


def stable_hash(*values: object) -> int:
    """A 64-bit hash of the values, the same on every machine."""
    return int_digest("\0".join(map(str, values)), byteorder="big")


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
        name = f"{stable_hash(title, text):016x}" if identity is None else str(identity)
        yield Article(name, title, text.strip(), lang, source)


def _distinct(
    articles: Iterable[Article], sampling: ArticleSampling, excluded: Counter[str]
) -> Iterator[Article]:
    texts: set[int] = set()
    ids: dict[str, int] = {}
    for article in articles:
        if sampling.languages and article.lang not in sampling.languages:
            excluded["another language"] += 1
            continue
        text = stable_hash(article.text)
        if ids.setdefault(article.id, text) != text:
            raise ValueError(
                f"two different articles have the id {article.id!r} (one in {article.source}): "
                "ids must be unique over all inputs; put the language or source in front of them"
            )
        if text in texts:
            excluded["duplicate"] += 1
            continue
        texts.add(text)
        yield article


def _of_length(
    articles: Iterable[Article],
    sampling: ArticleSampling,
    excluded: Counter[str],
    tokenizer: Tokenizer | None,
) -> Iterator[Article]:
    lengths = ((article, len(article.document)) for article in articles)
    fitting = _between(lengths, sampling.min_chars, sampling.max_chars, excluded)
    if tokenizer is None:
        yield from fitting
        return
    counted = (
        (article, int(length[0]))
        for chunk, lengths in measured(fitting, lambda article: [article.document], tokenizer)
        for article, length in zip(chunk, lengths, strict=True)
    )
    yield from _between(counted, sampling.min_tokens, sampling.max_tokens, excluded)


def _between(
    lengths: Iterable[tuple[Article, int]],
    shortest: int,
    longest: int | None,
    excluded: Counter[str],
) -> Iterator[Article]:
    for article, length in lengths:
        if length < shortest:
            excluded["too short"] += 1
        elif longest is not None and length > longest:
            excluded["too long"] += 1
        else:
            yield article


def _cut(line: str, longest: int) -> Iterator[str]:
    """Parts of a line below `longest`, cut between sentences, else words, else anywhere."""
    if text_size(line) < longest:
        if line:
            yield line
        return
    current = ""
    for sentence in _SENTENCE.split(line):
        fits = text_size(sentence) < longest
        for part in [sentence] if fits else _words(sentence, longest // 4):
            if current and text_size(current) + text_size(part) >= longest:
                yield current
                current = ""
            # Sentences of scripts without spaces are joined without one.
            separator = "" if not current or _WIDE.match(part) else " "
            current += separator + part
    if current:
        yield current


def _words(sentence: str, longest: int) -> list[str]:
    step = max(longest // 3, 1)
    return [
        word[start : start + step]
        for word in sentence.split()
        for start in range(0, len(word), step)
    ]


def _is_prose(text: str) -> bool:
    visible = [c for c in text if not c.isspace()]
    letters = sum(c.isalpha() or unicodedata.category(c)[0] == "M" for c in visible)
    return letters >= _PROSE * len(visible)
