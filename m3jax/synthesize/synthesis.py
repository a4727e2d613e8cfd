"""Questions for long documents: the recipe of MLDR. [M3 app. A.2]

    articles -> plan -> requests -> replies -> select -> write
                (paragraphs)     (replies.py)  (filters)  (train, dev, test)

A question is asked about one paragraph and paired with the whole article. Never imports JAX.
"""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.io.atomic import new_directory, new_file
from m3jax.synthesize.articles import Article, choose, digest, paragraphs
from m3jax.synthesize.consistency import Asked
from m3jax.synthesize.generators import Reply, Request
from m3jax.synthesize.prompts import prompt
from m3jax.synthesize.questions import Candidate, QuestionLimits, filters, question_of
from m3jax.text.tokenizer import Tokenizer

SPLITS = ("train", "dev", "test")
ANSWER_TOKENS = 40  # of a question, for estimates
Ranks = Callable[[Sequence[str], Sequence[Asked]], Iterator[int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is asked of an article, and where its questions go."""

    per_article: int = 1  # paragraphs
    shortest: int = 300  # paragraph, in `size`
    longest: int = 2000
    shares: tuple[float, float, float] = (1.0, 0.0, 0.0)  # of articles: train, dev, test
    source: str = "synthetic"  # of the examples
    beir: bool = False  # also dev and test as tasks for `m3jax evaluate`
    seed: int = 0

    def __post_init__(self):
        if self.per_article < 1:
            raise ValueError(f"paragraphs an article must be at least 1, got {self.per_article}")
        if not 0 < self.shortest <= self.longest // 2:
            raise ValueError(
                f"the longest paragraph must have at least twice the size of the shortest, got "
                f"{self.shortest} and {self.longest}"
            )
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares of train, dev, test must add up to 1, got {self.shares}")
        if self.beir and not any(self.shares[1:]):
            raise ValueError("tasks for evaluation need a share of dev or test: --shares 0.9,0,0.1")


class Question(NamedTuple):
    """One that passed every filter."""

    text: str
    asked: Asked
    split: str

    @property
    def id(self) -> str:
        return f"{self.asked.article.id}-{self.asked.number}"


Counts = dict[str, Counter[str]]  # language -> what became of its paragraphs


def choose_paragraphs(
    articles: Sequence[Article], plan: Plan, left_out: Counter[str]
) -> list[Asked]:
    """The paragraphs to ask about, article by article; `left_out` counts those without any."""
    found: list[Asked] = []
    for article in articles:
        parts = tuple(paragraphs(article.text, plan.shortest, plan.longest))
        if not parts:
            left_out["without a paragraph"] += 1
        numbers = choose(article, plan.per_article, len(parts), plan.seed)
        found += [Asked(article, parts, number) for number in numbers]
    return found


def requests_for(asked: Sequence[Asked]) -> list[Request]:
    """What a generator is asked."""
    return [
        Request(prompt(a.paragraph, a.article.title, a.article.lang), a.paragraph, a.article.lang)
        for a in asked
    ]


def estimate_tokens(
    requests: Sequence[Request], tokenizer: Tokenizer | None = None
) -> tuple[int, int]:
    """About how many tokens prompts and replies have; a token is four bytes without tokenizer."""
    prompts = [request.prompt for request in requests]
    if tokenizer is None or not prompts:
        read = sum(len(text.encode("utf-8", "replace")) for text in prompts) // 4
    else:
        read = int(tokenizer.count(prompts).sum())
    return read, ANSWER_TOKENS * len(requests)


def select(
    asked: Sequence[Asked],
    replies: Sequence[Reply],
    plan: Plan,
    limits: QuestionLimits,
    *,
    ranks: Ranks | None = None,
    top_k: int = 3,
) -> tuple[list[Question], Counts]:
    """The questions that pass every filter, and for each language how many were dropped and why.

    With `ranks` those whose paragraph ranks below `top_k` are dropped last.
    """
    counts: Counts = {}
    reason_of = filters(limits)
    passed: list[Question] = []
    for item, reply in zip(asked, replies, strict=True):
        count = counts.setdefault(item.article.lang, Counter())
        count["asked"] += 1
        text, reason = question_of(reply)
        if not reason:
            article = item.article
            reason = reason_of(Candidate(text, item.paragraph, article.title, article.lang))
        if reason:
            count[reason] += 1
        else:
            passed.append(Question(text, item, split_of(item.article, plan.shares)))
    if ranks is not None and passed:
        found = ranks([q.text for q in passed], [q.asked for q in passed])
        ranked = list(zip(passed, found, strict=True))
        passed = [question for question, rank in ranked if rank <= top_k]
        for question, rank in ranked:
            if rank > top_k:
                counts[question.asked.article.lang]["paragraph not found"] += 1
    for question in passed:
        counts[question.asked.article.lang]["kept"] += 1
    return passed, counts


def split_of(article: Article, shares: tuple[float, float, float]) -> str:
    """Train, dev or test, by the article's text alone: neither seed nor other articles count."""
    place = digest("split", article.text) / 2**64
    if place < shares[1]:
        return "dev"
    return "test" if place < shares[1] + shares[2] else "train"


def write(
    output: Path | str,
    questions: Sequence[Question],
    articles: Sequence[Article],
    plan: Plan,
    report: dict[str, Any],
) -> None:
    """OUTPUT/{train,dev,test}.jsonl.gz, report.json and, if asked for, beir/LANG; whole or absent.

    Raises ValueError where no question is left, FileExistsError where there is something already.
    """
    if not questions:
        raise ValueError(f"no question is left: {json.dumps(report['languages'])}")
    with new_directory(output) as scratch:
        for split in SPLITS:
            some = [question for question in questions if question.split == split]
            if some:
                with new_file(scratch / f"{split}.jsonl.gz") as add:
                    for question in some:
                        add(_line(_example(question, plan.source)))
        if plan.beir:
            _write_tasks(scratch / "beir", questions, articles)
        report = report | {"splits": Counter(question.split for question in questions)}
        (scratch / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _write_tasks(folder: Path, questions: Sequence[Question], articles: Sequence[Article]) -> None:
    """One task a language with judged questions, over all its articles, those of train too."""
    judged = [question for question in questions if question.split != "train"]
    for lang in sorted({question.asked.article.lang for question in judged}):
        task = folder / (lang or "unknown")
        some = [question for question in judged if question.asked.article.lang == lang]
        with new_file(task / "corpus.jsonl.gz") as add:
            for a in (article for article in articles if article.lang == lang):
                add(_line({"_id": a.id, "title": a.title, "text": a.text}))
        with new_file(task / "queries.jsonl.gz") as add:
            for question in some:
                add(_line({"_id": question.id, "text": question.text, "lang": lang}))
        with contextlib.ExitStack() as stack:
            for split in sorted({question.split for question in some}):
                add = stack.enter_context(new_file(task / "qrels" / f"{split}.tsv"))
                add("query-id\tcorpus-id\tscore\n")
                for question in some:
                    if question.split == split:
                        add(f"{question.id}\t{question.asked.article.id}\t1\n")


def _example(question: Question, source: str) -> dict[str, Any]:
    article = question.asked.article
    values = {"query": question.text, "pos": [article.whole], "neg": [], "id": question.id}
    values |= {"lang": article.lang} if article.lang else {}
    return values | {"source": source}


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
