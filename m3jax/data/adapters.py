"""Converts records of public data sets, in their published form, to training examples.

An adapter is a pure function from one record to its examples. A record without a positive pair (a
question without an answer, a pair of different meaning) gives none. It raises KeyError or TypeError
for a record of another form; `registry` adds the place.
"""

from collections.abc import Callable, Iterator
from typing import Any

from m3jax.data.examples import Example, parse_example
from m3jax.io.jsonl import with_title

Record = dict[str, Any]
Adapter = Callable[[Record], Iterator[Example]]


def training(record: Record) -> Iterator[Example]:
    """The training format: {"query", "pos": [...], "neg": [...]} and its optional keys."""
    yield parse_example(record, "record")


def squad(record: Record) -> Iterator[Example]:
    """SQuAD, XQuAD, MLQA: one question per row, or the articles of the original files.

    Questions that their paragraph does not answer (SQuAD 2.0) are skipped.
    """
    if "paragraphs" in record:
        for paragraph in record["paragraphs"]:
            for question in paragraph["qas"]:
                if question.get("answers"):
                    yield Example(
                        question["question"], (paragraph["context"],), id=str(question["id"])
                    )
    elif len(record["answers"]["text"]):
        yield Example(record["question"], (record["context"],), id=str(record["id"]))


def passages(record: Record) -> Iterator[Example]:
    """MIRACL, Mr.TyDi, MLDR, Tevatron's: positive_passages and negative_passages of a query."""
    positives = tuple(map(_passage, record["positive_passages"]))
    if positives:
        negatives = tuple(map(_passage, record.get("negative_passages") or ()))
        yield Example(record["query"], positives, negatives, id=str(record["query_id"]))


def contexts(record: Record) -> Iterator[Example]:
    """The retriever files of DPR (Natural Questions, TriviaQA), or Tevatron's copies."""
    if "positive_passages" in record:
        yield from passages(record)
        return
    positives = tuple(map(_passage, record["positive_ctxs"]))
    if positives:
        negatives = tuple(map(_passage, record["hard_negative_ctxs"]))
        yield Example(record["question"], positives, negatives)


def hotpotqa(record: Record) -> Iterator[Example]:
    """The paragraphs with a supporting fact are positives, the distractors negatives."""
    support = set(record["supporting_facts"]["title"])
    texts = {
        title: f"{title} {''.join(sentences).strip()}"
        for title, sentences in zip(
            record["context"]["title"], record["context"]["sentences"], strict=True
        )
    }
    positives = tuple(text for title, text in texts.items() if title in support)
    if positives:
        negatives = tuple(text for title, text in texts.items() if title not in support)
        yield Example(record["question"], positives, negatives, id=str(record["id"]))


def msmarco(record: Record) -> Iterator[Example]:
    """MS MARCO v1.1, v2.1: the selected ones of ten passages are positives.

    Queries without a selected passage are skipped.
    """
    listed = record["passages"]
    rows = list(zip(listed["is_selected"], listed["passage_text"], strict=True))
    positives = tuple(text for selected, text in rows if selected)
    if positives:
        negatives = tuple(text for selected, text in rows if not selected)
        yield Example(record["query"], positives, negatives, id=str(record["query_id"]))


def triple(record: Record) -> Iterator[Example]:
    """NLI in SimCSE's form: a sentence, one it entails, one it contradicts."""
    yield Example(record["sent0"], (record["sent1"],), (record["hard_neg"],))


def labelled_pair(record: Record) -> Iterator[Example]:
    """NLI-zh: two sentences and whether they mean the same."""
    if int(record["label"]) == 1:
        yield Example(record["sentence1"], (record["sentence2"],))


def pubmedqa(record: Record) -> Iterator[Example]:
    """A question and the abstract, without its conclusion, that answers it."""
    text = " ".join(record["context"]["contexts"])
    yield Example(record["question"], (text,), id=str(record["pubid"]))


def dureader(record: Record) -> Iterator[Example]:
    """DuReader-retrieval: the paragraphs that answer a question."""
    positives = tuple(p["paragraph_text"] for p in record["answer_paragraphs"])
    if positives:
        yield Example(record["question"], positives, id=str(record["question_id"]))


def instruction(record: Record) -> Iterator[Example]:
    """An instruction, followed by its input if it has one, and the output."""
    query = " ".join(part for part in (record["instruction"], record.get("input")) if part)
    yield Example(query, (record["output"],))


def prompted(record: Record) -> Iterator[Example]:
    """xP3: inputs and targets."""
    yield Example(record["inputs"], (record["targets"],), lang=record.get("language", ""))


def title_body(record: Record) -> Iterator[Example]:
    """Wikipedia, news, web pages: the title is the query."""
    yield Example(record["title"], (record["text"],), id=str(record.get("id", "")))


def title_abstract(record: Record) -> Iterator[Example]:
    """S2ORC and other papers; one without an abstract is skipped."""
    if record["abstract"]:
        yield Example(record["title"], (record["abstract"],))


def translation(record: Record) -> Iterator[Example]:
    """NLLB, CCMatrix, OPUS: {"translation": {language: sentence, language: sentence}}."""
    (language, sentence), (_, other) = record["translation"].items()
    yield Example(sentence, (other,), lang=language)


def code(record: Record) -> Iterator[Example]:
    """CodeSearchNet: a function's documentation and its code."""
    yield Example(
        record["func_documentation_string"],
        (record["func_code_string"],),
        lang=record.get("language", ""),
    )


def _passage(passage: Record) -> str:
    return with_title(passage.get("title") or "", passage["text"])
