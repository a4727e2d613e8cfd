"""Round-trip consistency: whether a model retrieves the paragraph of a generated question.

Each question ranks the paragraphs of its article and a sample of paragraphs of other articles in
its language, by inner products of dense vectors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from m3jax.embed.embedder import M3Embedder
from m3jax.synthesize.articles import SourceParagraph, stable_hash
from m3jax.synthesize.synthesis import RoundTripFilter

Embed = Callable[[list[str]], np.ndarray]  # texts to vectors [n, d]
MAX_LENGTH = 512  # tokens of a question or paragraph
OTHERS = 64  # paragraphs of other articles, per language
GROUP = 32  # questions whose articles are encoded together


def round_trip_filter(embedder: M3Embedder, top_k: int = 3, model: str = "") -> RoundTripFilter:
    """A filter by the dense vectors of `embedder`; `model` is its name in the report.

    Raises ValueError for a `top_k` below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    length = min(MAX_LENGTH, embedder.passage_max_length)

    def embed(encode: Callable) -> Embed:
        return lambda texts: encode(texts, max_length=length, show_progress=False)["dense_vecs"]

    queries, passages = embed(embedder.encode_queries), embed(embedder.encode_corpus)

    def ranks(
        questions: Sequence[str],
        sources: Sequence[SourceParagraph],
        sample: Iterable[SourceParagraph],
    ) -> Iterator[int]:
        return source_ranks(questions, sources, sample, queries, passages)

    return RoundTripFilter(ranks, top_k, model)


def source_ranks(
    questions: Sequence[str],
    sources: Sequence[SourceParagraph],
    sample: Iterable[SourceParagraph],
    embed_queries: Embed,
    embed_passages: Embed,
) -> Iterator[int]:
    """For each question the rank, from 1, of its source paragraph.

    The paragraphs of other articles are drawn from `sample`, independently of its order.
    """
    others = _sample_others(sample)
    vectors = {lang: embed_passages([p.text for p in part]) for lang, part in others.items()}
    for start in range(0, len(sources), GROUP):
        group = sources[start : start + GROUP]
        # An article may have several questions: its paragraphs are encoded once.
        texts = {source.article.id: list(source.paragraphs) for source in group}
        flat = embed_passages([text for part in texts.values() for text in part])
        ends = np.cumsum([len(part) for part in texts.values()])
        article_vectors = dict(zip(texts, np.split(flat, ends[:-1]), strict=True))
        queries = embed_queries(list(questions[start : start + GROUP]))
        for source, query in zip(group, queries, strict=True):
            article, lang = source.article.id, source.article.lang
            is_other = np.array([p.article.id != article for p in others.get(lang, ())])
            outside = np.zeros(0, np.float32)
            if is_other.any():
                outside = vectors[lang][is_other] @ query
            inside = article_vectors[article] @ query
            score = inside[source.number]
            yield 1 + int((inside > score).sum()) + int((outside > score).sum())


def _sample_others(sample: Iterable[SourceParagraph]) -> dict[str, list[SourceParagraph]]:
    """Language -> the paragraphs among which every question of that language is ranked."""
    paragraphs: dict[str, list[SourceParagraph]] = {}
    for paragraph in sample:
        paragraphs.setdefault(paragraph.article.lang, []).append(paragraph)
    for lang, items in paragraphs.items():
        items.sort(key=lambda item: stable_hash("others", item.article.id, item.number))
        paragraphs[lang] = items[:OTHERS]
    return paragraphs
