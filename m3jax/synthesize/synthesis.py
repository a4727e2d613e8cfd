"""Questions for long documents: the recipe of MLDR. [M3 app. A.2]

    articles -> draw_paragraphs -> synthesize_questions: replies -> filters -> train, dev, test

A question is generated for one paragraph and paired with the complete article.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.data.examples import Paths
from m3jax.io.atomic import new_directory
from m3jax.io.jsonl import BadRecords
from m3jax.synthesize.articles import (
    Article,
    ArticleSampling,
    SourceParagraph,
    read_articles,
    sample_articles,
    sample_numbers,
    split_paragraphs,
    stable_hash,
)
from m3jax.synthesize.generators import Generator, Reply, Request
from m3jax.synthesize.output import GeneratedQuestion, write_examples, write_tasks
from m3jax.synthesize.prompts import prompt
from m3jax.synthesize.questions import Candidate, QuestionLimits, filters, question_of
from m3jax.synthesize.reply_cache import generate_replies
from m3jax.text.tokenizer import Tokenizer

ANSWER_TOKENS = 40  # of a question, for estimates
Counts = dict[str, Counter[str]]  # language -> outcome -> number of paragraphs


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisPlan:
    """How many questions an article gets, and to which split they belong.

    Raises ValueError for a value out of range.
    """

    per_article: int = 1  # paragraphs
    shortest: int = 300  # paragraph, in `text_size`
    longest: int = 2000
    shares: tuple[float, float, float] = (1.0, 0.0, 0.0)  # of articles: train, dev, test
    source: str = "synthetic"  # of the examples
    beir: bool = False  # also write dev and test as tasks for `m3jax evaluate`
    seed: int = 0

    def __post_init__(self):
        if self.per_article < 1:
            raise ValueError(f"paragraphs per article must be at least 1, got {self.per_article}")
        if not 0 < self.shortest <= self.longest // 2:
            raise ValueError(
                "the longest paragraph must have at least twice the size of the shortest, got "
                f"{self.shortest} and {self.longest}"
            )
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares of train, dev, test must add up to 1, got {self.shares}")
        if self.beir and not any(self.shares[1:]):
            raise ValueError("tasks for evaluation need a share of dev or test: --shares 0.9,0,0.1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """The settings of a synthesis."""

    sampling: ArticleSampling = ArticleSampling()
    plan: SynthesisPlan = SynthesisPlan()
    limits: QuestionLimits = QuestionLimits()
    language: str = ""  # of records without "lang"
    skip_bad: int = 0  # invalid records that are skipped before one is an error


class ParagraphSample(NamedTuple):
    """The articles and paragraphs for which questions are generated."""

    options: SynthesisOptions
    articles: list[Article]
    paragraphs: list[SourceParagraph]
    excluded: Counter[str]  # articles by reason

    def requests(self) -> list[Request]:
        """The request for each paragraph's question."""
        return [
            Request(prompt(p.text, p.article.title, p.article.lang), p.text, p.article.lang)
            for p in self.paragraphs
        ]


class RoundTripFilter(NamedTuple):
    """Drops questions whose paragraph a model ranks below `top_k` (see consistency.py).

    `ranks(questions, sources, sample)` yields the rank, from 1, of each question's paragraph among
    those of its article and of `sample`.
    """

    ranks: Callable[
        [Sequence[str], Sequence[SourceParagraph], Iterable[SourceParagraph]], Iterator[int]
    ]
    top_k: int = 3
    model: str = ""  # for the report


class SynthesisResult(NamedTuple):
    """The questions, the outcome of each paragraph by language, and the contents of report.json."""

    questions: list[GeneratedQuestion]
    counts: Counts
    report: dict[str, Any]


def draw_paragraphs(
    inputs: Paths,
    options: SynthesisOptions | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Callable[[int], None] | None = None,
) -> ParagraphSample:
    """Draws articles from files, directories and globs, and paragraphs from the articles.

    `tokenizer` is needed for limits in tokens. `progress` is called with the number of articles
    read. The sample is a function of the seed and the texts.

    Raises ValueError for an invalid record, and if there is no paragraph to draw.
    """
    options = options or SynthesisOptions()
    excluded: Counter[str] = Counter()
    bad = BadRecords(options.skip_bad)
    read = _counted(read_articles(inputs, bad, options.language), progress)
    articles = sample_articles(read, options.sampling, excluded, tokenizer)
    if bad.count:
        excluded["bad record"] = bad.count
    paragraphs = _sample_paragraphs(articles, options.plan, excluded)
    if not paragraphs:
        raise ValueError(f"no article is left to generate questions for: {dict(excluded)}")
    return ParagraphSample(options, articles, paragraphs, excluded)


def synthesize_questions(
    sample: ParagraphSample,
    output: Path | str,
    generator: Generator,
    *,
    cache: Path | str | None = None,
    round_trip: RoundTripFilter | None = None,
    progress: Callable[[int], None] | None = None,
) -> SynthesisResult:
    """Generates a question for each paragraph, filters them, and writes a new directory.

    OUTPUT/{train,dev,test}.jsonl.gz hold the examples, OUTPUT/report.json the counts and settings,
    OUTPUT/beir/LANG the tasks for evaluation if the plan asks for them. Replies are appended to
    `cache` (default: OUTPUT.replies.jsonl) as they arrive; after an interruption the same call
    continues and sends no request twice. `progress` is called with the number of new replies.

    Raises FileExistsError if `output` exists, ValueError if no question passes the filters, and
    what the generator raises.
    """
    cache = check_paths(output, cache)
    plan = sample.options.plan
    replies = generate_replies(sample.requests(), generator, cache, progress)
    questions, counts = _select(sample, replies, round_trip)
    report = _report(sample, generator, round_trip, counts, replies)
    if not questions:
        raise ValueError(f"no question is left: {json.dumps(report['languages'])}")
    report |= {"splits": Counter(question.split for question in questions)}
    with new_directory(output) as scratch:
        write_examples(scratch, questions, plan.source, report)
        if plan.beir:
            write_tasks(scratch / "beir", questions, sample.articles)
    return SynthesisResult(questions, counts, report)


def check_paths(output: Path | str, cache: Path | str | None = None) -> Path:
    """The path of the cache, by default OUTPUT.replies.jsonl.

    Raises FileExistsError if `output` exists, ValueError for a cache inside `output`.
    """
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(f"{output} already exists; name a new directory or remove it first")
    cache = Path(cache) if cache else output.with_name(f"{output.name}.replies.jsonl")
    if output.resolve() in cache.resolve().parents:
        raise ValueError(f"{cache} is inside {output}, which must be new: use another --cache")
    return cache


def estimate_tokens(
    requests: Sequence[Request], tokenizer: Tokenizer | None = None
) -> tuple[int, int]:
    """Estimated tokens of the prompts and of the replies; without tokenizer, four bytes each."""
    prompts = [request.prompt for request in requests]
    if tokenizer is None or not prompts:
        count = sum(len(text.encode("utf-8", "replace")) for text in prompts) // 4
    else:
        count = int(tokenizer.count(prompts).sum())
    return count, ANSWER_TOKENS * len(requests)


def split_of(article: Article, shares: tuple[float, float, float]) -> str:
    """train, dev or test: a function of the article's text alone, not of seed or input."""
    position = stable_hash("split", article.text) / 2**64
    if position < shares[1]:
        return "dev"
    return "test" if position < shares[1] + shares[2] else "train"


def _counted(
    articles: Iterable[Article], progress: Callable[[int], None] | None
) -> Iterator[Article]:
    for number, article in enumerate(articles, start=1):
        yield article
        if progress and number % 100 == 0:
            progress(number)


def _sample_paragraphs(
    articles: Sequence[Article], plan: SynthesisPlan, excluded: Counter[str]
) -> list[SourceParagraph]:
    """The sampled paragraphs of each article; `excluded` counts the articles without any."""
    sources: list[SourceParagraph] = []
    for article in articles:
        paragraphs = tuple(split_paragraphs(article.text, plan.shortest, plan.longest))
        if not paragraphs:
            excluded["without a paragraph"] += 1
        numbers = sample_numbers(article, plan.per_article, len(paragraphs), plan.seed)
        sources += [SourceParagraph(article, paragraphs, number) for number in numbers]
    return sources


def _select(
    sample: ParagraphSample, replies: Sequence[Reply], round_trip: RoundTripFilter | None
) -> tuple[list[GeneratedQuestion], Counts]:
    """The questions that pass every filter, and the outcome of each paragraph by language."""
    counts: Counts = {}
    reason_of = filters(sample.options.limits)
    passed: list[GeneratedQuestion] = []
    for source, reply in zip(sample.paragraphs, replies, strict=True):
        article = source.article
        count = counts.setdefault(article.lang, Counter())
        count["asked"] += 1
        text, reason = question_of(reply)
        if not reason:
            reason = reason_of(Candidate(text, source.text, article.title, article.lang))
        if reason:
            count[reason] += 1
        else:
            split = split_of(article, sample.options.plan.shares)
            passed.append(GeneratedQuestion(text, source, split))
    if round_trip is not None and passed:
        texts, sources = [q.text for q in passed], [q.source for q in passed]
        ranks = list(round_trip.ranks(texts, sources, sample.paragraphs))
        for question, rank in zip(passed, ranks, strict=True):
            if rank > round_trip.top_k:
                counts[question.lang]["paragraph not found"] += 1
        passed = [q for q, rank in zip(passed, ranks, strict=True) if rank <= round_trip.top_k]
    for question in passed:
        counts[question.lang]["kept"] += 1
    return passed, counts


def _report(
    sample: ParagraphSample,
    generator: Generator,
    round_trip: RoundTripFilter | None,
    counts: Counts,
    replies: Sequence[Reply],
) -> dict[str, Any]:
    options = sample.options
    return {
        "generator": generator.name,
        "model": generator.model,
        "check_model": round_trip.model if round_trip else None,
        "check_top_k": round_trip.top_k if round_trip else None,
        "settings": {
            "Sampling": dataclasses.asdict(options.sampling),
            "Plan": dataclasses.asdict(options.plan),
            "QuestionLimits": dataclasses.asdict(options.limits),
        },
        "articles": len(sample.articles),
        "left_out": dict(sample.excluded),
        "languages": {lang: dict(count) for lang, count in sorted(counts.items())},
        "tokens": {
            "prompts": sum(reply.prompt_tokens for reply in replies),
            "replies": sum(reply.completion_tokens for reply in replies),
        },
    }
