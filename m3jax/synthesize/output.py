"""The files of a synthesis: examples by split, report, and tasks for evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.io.atomic import new_file
from m3jax.synthesize.articles import Article, SourceParagraph

SPLITS = ("train", "dev", "test")


class GeneratedQuestion(NamedTuple):
    """A question that passed every filter, the paragraph that answers it, and its split."""

    text: str
    source: SourceParagraph
    split: str

    @property
    def id(self) -> str:
        return f"{self.source.article.id}-{self.source.number}"

    @property
    def lang(self) -> str:
        return self.source.article.lang


def write_examples(
    output: Path, questions: Sequence[GeneratedQuestion], tag: str, report: dict[str, Any]
) -> None:
    """Writes {train,dev,test}.jsonl.gz, with `tag` as the examples' source, and report.json."""
    for split in SPLITS:
        part = [question for question in questions if question.split == split]
        if part:
            with new_file(output / f"{split}.jsonl.gz") as write:
                for question in part:
                    write(_line(_example(question, tag)))
    (output / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def write_tasks(
    output: Path, questions: Sequence[GeneratedQuestion], articles: Sequence[Article]
) -> None:
    """Writes a task for `m3jax evaluate` per language that has dev or test questions.

    The corpus of a task has all articles of the language, those of the training split included.
    """
    judged = [question for question in questions if question.split != "train"]
    for lang in sorted({question.lang for question in judged}):
        task = output / (lang or "unknown")
        part = [question for question in judged if question.lang == lang]
        with new_file(task / "corpus.jsonl.gz") as write:
            for article in articles:
                if article.lang == lang:
                    values = {"_id": article.id, "title": article.title, "text": article.text}
                    write(_line(values))
        with new_file(task / "queries.jsonl.gz") as write:
            for question in part:
                write(_line({"_id": question.id, "text": question.text, "lang": lang}))
        for split in sorted({question.split for question in part}):
            with new_file(task / "qrels" / f"{split}.tsv") as write:
                write("query-id\tcorpus-id\tscore\n")
                for question in part:
                    if question.split == split:
                        write(f"{question.id}\t{question.source.article.id}\t1\n")


def _example(question: GeneratedQuestion, tag: str) -> dict[str, Any]:
    article = question.source.article
    values = {"query": question.text, "pos": [article.document], "neg": [], "id": question.id}
    values |= {"lang": article.lang} if article.lang else {}
    return values | {"source": tag}


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
