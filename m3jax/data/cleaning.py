"""Filters for pairs from raw text; each counts what it drops.

They are applied in this order, cheap ones first: too short, query equal to passage, too repetitive,
wrong script, exact duplicate, near duplicate, low relevance. The first of several duplicates stays.
Memory: 16 bytes per pair for exact duplicates, about 2 kB for near ones. Deterministic.
"""

import dataclasses
import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from m3jax.data.extract import Pair
from m3jax.io.hashing import new_digest

# Languages written in one script, by the first word of its letters' Unicode names.
_SCRIPTS = """\
ARABIC ar arz ckb fa ks ps sd ug ur
ARMENIAN hy
BENGALI as bn
CJK zh
CYRILLIC ba be bg kk ky mk mn ru tg tt uk
DEVANAGARI bho hi mai mr ne sa
ETHIOPIC am ti
GEORGIAN ka
GREEK el
GUJARATI gu
GURMUKHI pa
HANGUL ko
HEBREW he yi
KANNADA kn
KHMER km
LAO lo
LATIN af ca cs cy da de en es et eu fi fr ga gl hr hu id is it lt lv ms nl no pl pt ro sk sl sq sv
LATIN sw tl tr vi yo zu
MALAYALAM ml
MYANMAR my
ORIYA or
SINHALA si
TAMIL ta
TELUGU te
THAI th
TIBETAN bo
"""
SCRIPTS = {
    code: {script} for script, *codes in map(str.split, _SCRIPTS.splitlines()) for code in codes
}
SCRIPTS |= {"ja": {"CJK", "HIRAGANA", "KATAKANA"}}
SHINGLE = 5  # characters, of near duplicates
GRAM = 10  # characters, of repetition
SAMPLE = 2000  # characters of a text that repetition and script are judged by
PERMUTATIONS, BANDS = 128, 32

Relevance = Callable[[Sequence[str], Sequence[str]], Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Thresholds of the filters; 0 turns a filter off."""

    query_chars: int = 4
    passage_chars: int = 20
    distinct: float = 0.5  # share of distinct 10-grams among a text's 10-grams
    script: float = 0.5  # share of letters in the script of the declared language
    near_duplicates: float = 0.8  # Jaccard similarity of 5-grams from which passages are duplicates
    relevance: float = 0.0  # minimum score of query and passage by the model

    def __post_init__(self):
        for name in ("distinct", "script", "near_duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def clean(
    pairs: Iterable[Pair],
    limits: Limits,
    dropped: Counter[str],
    *,
    relevance: Relevance | None = None,
    batch: int = 256,
) -> Iterator[Pair]:
    """Yields the pairs that pass all filters, in order; `dropped` counts the others by reason.

    `relevance` maps lists of queries and passages to one score per pair. Raises ImportError if near
    duplicates are to be removed and rensa is not installed.
    """
    checks = _checks(limits)

    def passing() -> Iterator[Pair]:
        for pair in pairs:
            reason = next((name for name, fails in checks if fails(pair)), None)
            if reason:
                dropped[reason] += 1
            else:
                yield pair

    if relevance is None or not limits.relevance:
        yield from passing()
        return
    remaining = passing()
    while group := tuple(itertools.islice(remaining, batch)):
        scores = relevance([p.query for p in group], [p.passage for p in group])
        for pair, score in zip(group, scores, strict=True):
            if score >= limits.relevance:
                yield pair
            else:
                dropped["low relevance"] += 1


def repetitive(text: str, minimum: float) -> bool:
    """True if the share of distinct 10-grams is below `minimum`; False for very short texts."""
    text = text[:SAMPLE]
    grams = len(text) - GRAM + 1
    if grams < 2 * GRAM:
        return False
    return len({text[i : i + GRAM] for i in range(grams)}) < minimum * grams


def wrong_script(text: str, language: str, minimum: float) -> bool:
    """True if the share of letters in the language's script is below `minimum`.

    False for a language whose script is unknown.
    """
    expected = SCRIPTS.get(language.split("-")[0].split("_")[0].lower())
    if expected is None:
        return False
    letters = [c for c in text[:SAMPLE] if c.isalpha()]
    if not letters:
        return False
    return sum(_script(c) in expected for c in letters) < minimum * len(letters)


def plain(text: str) -> str:
    """The text in NFKC, casefolded, white space collapsed: the form of exact duplicates."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> set[str]:
    """The character 5-grams of the `plain` text."""
    text = plain(text)
    return {text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1))}


def signature_of(text: str) -> Any:
    """The MinHash of a text; `a.jaccard(b)` estimates the Jaccard similarity of their 5-grams."""
    signature = _rensa().RMinHash(PERMUTATIONS, 42)
    signature.update(sorted(shingles(text)))
    return signature


def near_duplicates(threshold: float) -> Callable[[str], bool]:
    """A function that returns True for a text similar to one of its earlier arguments.

    MinHash finds candidates; a share of at least `threshold` of their signature must agree.
    """
    index = _rensa().RMinHashLSH(threshold, PERMUTATIONS, BANDS)
    signatures: list[Any] = []

    def seen(text: str) -> bool:
        signature = signature_of(text)
        if any(signatures[i].jaccard(signature) >= threshold for i in index.query(signature)):
            return True
        index.insert(len(signatures), signature)
        signatures.append(signature)
        return False

    return seen


def _checks(limits: Limits) -> list[tuple[str, Callable[[Pair], bool]]]:
    seen_pairs: set[bytes] = set()

    def duplicate(pair: Pair) -> bool:
        text = f"{pair.query}\0{pair.passage}".encode("utf-8", "backslashreplace")
        key = new_digest(text).digest()
        if key in seen_pairs:
            return True
        seen_pairs.add(key)
        return False

    def short(pair: Pair) -> bool:
        return len(pair.query) < limits.query_chars or len(pair.passage) < limits.passage_chars

    def foreign(pair: Pair) -> bool:
        return wrong_script(pair.query, pair.lang, limits.script) or wrong_script(
            pair.passage, pair.passage_lang, limits.script
        )

    checks: list[tuple[str, Callable[[Pair], bool]]] = [
        ("too short", short),
        ("query equals passage", lambda p: p.query.casefold() == p.passage.casefold()),
    ]
    if limits.distinct:
        checks.append(("too repetitive", lambda p: repetitive(p.passage, limits.distinct)))
    if limits.script:
        checks.append(("wrong script", foreign))
    checks.append(("duplicate", duplicate))
    if limits.near_duplicates:
        seen = near_duplicates(limits.near_duplicates)
        checks.append(("near duplicate", lambda p: seen(p.passage)))
    return checks


def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise ImportError(
            "near duplicates need rensa: pip install 'm3jax[data]', or turn them off with 0"
        ) from error
    return rensa


@functools.cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]
