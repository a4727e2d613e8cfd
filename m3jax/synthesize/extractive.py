"""Queries without a model: the telling words of a paragraph's most telling sentence.

For tests and for work offline; a query of this kind is a search by keywords, not a question. In
scripts without spaces a text is cut at signs, at changes of script and at function words.
Never imports JAX.
"""

import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from m3jax.io.hashing import new_digest
from m3jax.synthesize.articles import sentences, size
from m3jax.synthesize.deixis import leans_on_text
from m3jax.synthesize.generators import Generator, Reply, Request
from m3jax.synthesize.prompts import NONE

WORDS = 6  # of a query
# Letters and digits with the marks that \w leaves out: accents, Hebrew, Arabic, Indic vowels.
_LETTER = r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u0670\u0900-\u0963\u0966-\u0dff\u200c])"
_WORD = re.compile(rf"{_LETTER}+(?:['’]{_LETTER}+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# Runs of one script: kana words of ideographs and katakana; Thai, Lao, Burmese and Khmer with
# their marks; anything else that is letters or digits. Hiragana is mostly grammar.
_RUN = re.compile(
    r"[\u3400-\u9fff々]+|[\u30a0-\u30ff]+|[\u0e00-\u0eff]+|[\u1000-\u109f]+|[\u1780-\u17ff]+"
    r"|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+"
)
_FUNCTION = re.compile(
    "|".join(
        sorted(
            "的 是 在 了 和 與 与 及 或 為 为 於 于 以 而 也 並 并 被 由 從 从 對 对 其 之 等 這 "
            "这 那 有 到 將 将 就 但 因 所 後 后 時 时 則 则 又 他 她 它 們 们 个 個 "
            "ที่ และ ของ ใน เป็น ได้ มี ให้ จาก โดย กับ หรือ ซึ่ง ว่า การ ความ ไม่ ก็ จะ แต่ นี้ นั้น "
            "แล้ว อยู่ ไป มา เพื่อ ต่อ ตาม เมื่อ ถึง อย่าง ด้วย คือ ถูก ยัง".split(),
            key=len,
            reverse=True,
        )
    )
)


def extractive_generator(paragraphs: Iterable[str]) -> Generator:
    """A generator whose words are weighed by how few of `paragraphs` hold them."""
    counts: Counter[str] = Counter()
    digest = new_digest()
    total = 0
    for paragraph in paragraphs:
        total += 1
        counts.update(set(itertools.chain.from_iterable(map(_parts, _terms(paragraph)))))
        digest.update(paragraph.encode("utf-8", "surrogatepass") + b"\0")

    def weight(term: str) -> float:
        """The mean of its parts' idf."""
        parts = _parts(term)
        return sum(math.log((total + 1) / (counts[p] + 0.5)) for p in parts) / len(parts)

    def query(paragraph: str, language: str) -> str:
        best, best_score = "", 0.0
        often = Counter(_terms(paragraph))

        def salience(term: str) -> float:
            return weight(term) * (1 + math.log(often[term] or 1))

        for sentence in sentences(paragraph):
            distinct = list(dict.fromkeys(t for t in _terms(sentence) if _telling(t, language)))
            chosen = sorted(distinct, key=salience, reverse=True)[:WORDS]
            score = sum(map(salience, chosen))
            if score > best_score and len(chosen) > 2:
                best = " ".join(term for term in distinct if term in chosen)
                best_score = score
        return best or NONE

    def answer(requests: Sequence[Request]) -> list[Reply]:
        return [Reply(query(request.paragraph, request.lang)) for request in requests]

    return Generator(f"extractive {digest.hexdigest()}", answer, threading.Event(), batch=64)


def _terms(text: str) -> list[str]:
    found = []
    for word in _WORD.findall(text) if not _UNSPACED.search(text) else _RUN.findall(text):
        found += _FUNCTION.split(word) if _UNSPACED.match(word) else [word]
    return [term for term in found if term]


def _telling(term: str, language: str) -> bool:
    return size(term) > 2 and not leans_on_text(term, language)


def _parts(term: str) -> list[str]:
    """What is counted: a word, or the 2-grams of a run in a script without spaces."""
    term = term.casefold()
    if not _UNSPACED.match(term) or len(term) < 3:
        return [term]
    return [term[i : i + 2] for i in range(len(term) - 1)]
