"""Does a model find the paragraph that a question was written for?

Each question ranks the paragraphs of its own article and some of other articles in its language,
by inner products of dense vectors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m3jax.synthesize.articles import Article, digest

Embed = Callable[[list[str]], np.ndarray]  # texts to vectors [n, d]
OTHERS = 64  # paragraphs of other articles, a language
GROUP = 32  # questions whose articles are encoded together


class Asked(NamedTuple):
    """A paragraph of an article that a question was asked for."""

    article: Article
    paragraphs: tuple[str, ...]  # all of the article's
    number: int  # of the paragraph

    @property
    def paragraph(self) -> str:
        return self.paragraphs[self.number]


def source_ranks(
    questions: Sequence[str],
    asked: Sequence[Asked],
    sample: Iterable[Asked],
    embed_queries: Embed,
    embed_passages: Embed,
) -> Iterator[int]:
    """For each question the rank, from 1, of the paragraph it was asked for.

    `sample` is what the others are drawn from: the same ones whatever its order.
    """
    others = _others(sample)
    vectors = {lang: embed_passages([a.paragraph for a in some]) for lang, some in others.items()}
    for start in range(0, len(asked), GROUP):
        group = asked[start : start + GROUP]
        # One article may stand behind several questions.
        texts = {a.article.id: list(a.paragraphs) for a in group}
        flat = embed_passages([text for some in texts.values() for text in some])
        ends = np.cumsum([len(some) for some in texts.values()])
        own = dict(zip(texts, np.split(flat, ends[:-1]), strict=True))
        queries = embed_queries(list(questions[start : start + GROUP]))
        for item, query in zip(group, queries, strict=True):
            lang = item.article.lang
            foreign = np.array([o.article.id != item.article.id for o in others.get(lang, ())])
            outside = vectors[lang][foreign] @ query if foreign.any() else np.zeros(0, np.float32)
            inside = own[item.article.id] @ query
            best = inside[item.number]
            yield 1 + int((inside > best).sum()) + int((outside > best).sum())


def _others(sample: Iterable[Asked]) -> dict[str, list[Asked]]:
    """Language -> the paragraphs that every question of that language is ranked among."""
    found: dict[str, list[Asked]] = {}
    for item in sample:
        found.setdefault(item.article.lang, []).append(item)
    for lang, items in found.items():
        items.sort(key=lambda item: digest("others", item.article.id, item.number))
        found[lang] = items[:OTHERS]
    return found
