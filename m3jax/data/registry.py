"""The paper's sources of training data: what each is, where it is, how a record becomes examples.

Names, stages and sizes: [M3 sec. 3.1, 4, app. A, B.1, Table 8]; sizes are pairs, the paper's where
it gives them (of a whole group where it gives only that). Licences are what the publishers state,
"unknown" where they state none; read them before you train. Nothing is downloaded unless a caller
asks for the hub. Never imports JAX.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3jax.data import adapters
from m3jax.data.adapters import Adapter
from m3jax.data.examples import Example, Paths, example_files, read_values, to_json
from m3jax.io.atomic import new_file
from m3jax.io.jsonl import BadRecords, numbered_lines, parse_object, read_records
from m3jax.io.tables import hub_reader, tfds_reader

WIKI = "CC BY-SA"
GROUP_EN, GROUP_ZH, GROUP_MULTI = "of 1.1M en", "of 387k zh", "of 89k multilingual"


class Source(NamedTuple):
    """A row of the registry. `hub` and `tfds` name it there; `origin` is for people."""

    name: str
    stage: str
    languages: str
    size: str
    origin: str
    licence: str
    adapter: Adapter
    hub: tuple[str, str] | None = None  # (repository, configuration; "" where there is one)
    tfds: str | None = None


SOURCES = (
    # Unlabelled pairs for the contrastive stage.
    Source("mtp", "pretrain", "en zh", "291M", "BAAI/MTP on the hub", "its own; see there",
           adapters.title_body),
    Source("s2orc", "pretrain", "en", "of 48M with Wikipedia", "allenai/s2orc; API of Semantic "
           "Scholar", "ODC-By 1.0", adapters.title_abstract),
    Source("wikipedia", "pretrain", "300+", "of 48M with S2ORC", "dumps.wikimedia.org", WIKI,
           adapters.title_body, ("wikimedia/wikipedia", "20231101.en"), "wikipedia/20230601.en"),
    Source("xp3", "pretrain", "46", "of 488M with mC4 and CC-News", "bigscience/xP3", "Apache-2.0",
           adapters.prompted, ("bigscience/xP3", "en")),
    Source("mc4", "pretrain", "108", "of 488M with xP3 and CC-News", "allenai/c4, multilingual; "
           "records have no title: add one", "ODC-By", adapters.title_body),
    Source("cc-news", "pretrain", "100+", "of 488M with xP3 and mC4", "vblagoje/cc_news (en) and "
           "commoncrawl.org", "unknown", adapters.title_body, ("vblagoje/cc_news", "")),
    Source("nllb", "pretrain", "148", "of 391M with CCMatrix", "allenai/nllb", "ODC-By",
           adapters.translation),
    Source("ccmatrix", "pretrain", "80", "of 391M with NLLB", "opus.nlpl.eu/CCMatrix", "unknown",
           adapters.translation),
    Source("codesearchnet", "pretrain", "6 programming languages", "344k",
           "github.com/github/CodeSearchNet", "each function's own", adapters.code,
           ("code-search-net/code_search_net", "all")),
    # Labelled English.
    Source("hotpotqa", "finetune", "en", GROUP_EN, "hotpotqa.github.io", "CC BY-SA 4.0",
           adapters.hotpotqa, ("hotpotqa/hotpot_qa", "distractor")),
    Source("triviaqa", "finetune", "en", GROUP_EN, "DPR's biencoder-trivia-train.json",
           "Apache-2.0 (questions)", adapters.contexts, ("Tevatron/wikipedia-trivia", "")),
    Source("nq", "finetune", "en", GROUP_EN, "DPR's biencoder-nq-train.json", "CC BY-SA 3.0",
           adapters.contexts, ("Tevatron/wikipedia-nq", "")),
    Source("msmarco", "finetune", "en", GROUP_EN, "microsoft.github.io/msmarco",
           "research, not commercial", adapters.msmarco, ("microsoft/ms_marco", "v2.1")),
    Source("coliee", "finetune", "en", GROUP_EN, "the COLIEE competition, by agreement",
           "by agreement", adapters.passages),
    Source("pubmedqa", "finetune", "en", GROUP_EN, "pubmedqa.github.io", "MIT", adapters.pubmedqa,
           ("qiaojin/PubMedQA", "pqa_labeled")),
    Source("squad", "finetune", "en", GROUP_EN, "rajpurkar.github.io/SQuAD-explorer",
           "CC BY-SA 4.0", adapters.squad, ("rajpurkar/squad", ""), "squad/v1.1"),
    Source("nli", "finetune", "en", GROUP_EN, "nli_for_simcse.csv of SimCSE", "SNLI CC BY-SA 4.0, "
           "MNLI mixed", adapters.triple, ("princeton-nlp/datasets-for-simcse", "")),
    # Labelled Chinese.
    Source("dureader", "finetune", "zh", GROUP_ZH, "github.com/baidu/DuReader", "Apache-2.0",
           adapters.dureader),
    Source("mmarco-zh", "finetune", "zh", GROUP_ZH, "unicamp-dl/mmarco: triples of texts",
           "Apache-2.0; MS MARCO's terms", adapters.passages),
    Source("t2ranking", "finetune", "zh", GROUP_ZH, "github.com/THUIR/T2Ranking", "Apache-2.0",
           adapters.passages),
    Source("law-gpt", "finetune", "zh", GROUP_ZH, "github.com/LiuHC0428/LAW-GPT", "unknown",
           adapters.instruction),
    Source("cmedqa2", "finetune", "zh", GROUP_ZH, "github.com/zhangsheng93/cMedQA2",
           "research, not commercial", adapters.passages),
    Source("nli-zh", "finetune", "zh", GROUP_ZH, "shibing624/nli_zh", "unknown",
           adapters.labelled_pair, ("shibing624/nli_zh", "LCQMC")),
    Source("lecardv2", "finetune", "zh", GROUP_ZH, "github.com/THUIR/LeCaRDv2", "MIT",
           adapters.passages),
    # Labelled multilingual, and the paper's own long documents.
    Source("miracl", "finetune", "16", GROUP_MULTI, "miracl/miracl", "Apache-2.0",
           adapters.passages),
    Source("mr-tydi", "finetune", "11", GROUP_MULTI, "castorini/mr-tydi", "Apache-2.0",
           adapters.passages, ("castorini/mr-tydi", "english")),
    Source("mldr", "finetune", "13", "41,434", "Shitao/MLDR", "MIT", adapters.passages),
    # Where a model may be measured; XQuAD and MLQA have the shape of SQuAD.
    Source("xquad", "evaluate", "12", "14,280", "github.com/google-deepmind/xquad",
           "CC BY-SA 4.0", adapters.squad, ("google/xquad", "xquad.en"), "xquad/en"),
    Source("mlqa", "evaluate", "7", "46k", "github.com/facebookresearch/MLQA", "CC BY-SA 3.0",
           adapters.squad, ("facebook/mlqa", "mlqa.en.en"), "mlqa/en"),
    Source("training", "finetune", "any", "yours", "files of {query, pos, neg}", "yours",
           adapters.training),
)  # fmt: skip


def find(name: str) -> Source:
    """The row of this name; KeyError tells the known ones."""
    for source in SOURCES:
        if source.name == name:
            return source
    raise KeyError(f"no source {name!r}; known: {', '.join(s.name for s in SOURCES)}")


def examples_of(
    source: Source, records: Iterator[tuple[str, dict[str, Any]]], on_bad: Callable
) -> Iterator[Example]:
    """The examples in (place, record) pairs, named after the source where they name none.

    `on_bad` receives a ValueError for a record of another shape; what it lets pass is left out.
    """
    for place, record in records:
        try:
            found = list(source.adapter(record))
            for example in found:
                if not isinstance(example.query, str) or not example.query.strip():
                    raise ValueError("the query is blank")
                if any(not isinstance(t, str) or not t.strip() for t in example.positives):
                    raise ValueError("a positive is blank")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            on_bad(ValueError(f"{place}: not a record of {source.name}: {what}"))
            continue
        for example in found:
            yield example._replace(source=example.source or source.name)


def convert(
    source: Source,
    records: Iterator[tuple[str, dict[str, Any]]],
    output: Path | str,
    *,
    language: str = "",
    skip_bad: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Writes training JSON Lines, compressed by the name's ending, whole or not at all."""
    bad = BadRecords(skip_bad)
    count = negatives = 0
    with new_file(output) as write:
        for example in examples_of(source, records, bad):
            if language and not example.lang:
                example = example._replace(lang=language)
            write(json.dumps(to_json(example), ensure_ascii=False) + "\n")
            count += 1
            negatives += len(example.negatives)
            if progress and count % 1000 == 0:
                progress(count)
        if not count:
            raise ValueError(f"no example of {source.name} in the input; nothing was written")
    return {"examples": count, "negatives": negatives, "skipped": bad.count}


def from_files(paths: Paths, on_bad: Callable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of JSON Lines and Parquet files, and of whole .json files (a list, or its "data")."""
    for file in example_files(paths):
        if file.suffix != ".json":
            yield from ((str(place), values) for place, values in read_values(file, on_bad))
            continue
        try:
            whole = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON: {error}") from error
        rows = whole.get("data") if isinstance(whole, dict) else whole
        if not isinstance(rows, list):
            raise ValueError(f'{file} holds neither a list nor {{"data": [...]}}')
        for number, row in enumerate(rows, start=1):
            yield f"{file}, item {number}", parse_object(json.dumps(row), f"{file}, item {number}")


def from_tables(
    queries: Path | str, corpus: Path | str, qrels: Path | str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Queries, texts and judgements in files of their own, joined to the records of `passages`.

    Queries and texts: JSON Lines {"_id", "text", "title"?} or two columns set apart by tabs (id,
    text). Judgements: query, text and label in the last column (0: a negative), BEIR's or TREC's.
    Only judged texts are held in memory. ValueError names what a judgement points to in vain.
    """
    judged: dict[str, dict[str, list[str]]] = {}
    for place, fields in _columns(qrels):
        if len(fields) < 3 or not fields[-1].strip().lstrip("-").isdigit():
            if place.endswith(":1"):
                continue  # a header
            raise ValueError(f"{place}: expected query, text and label, got {fields}")
        side = "positive" if int(fields[-1]) > 0 else "negative"
        entry = judged.setdefault(fields[0], {"positive": [], "negative": []})
        entry[side].append(fields[-2])
    wanted = {name for sides in judged.values() for side in sides.values() for name in side}
    texts = {name: text for _, name, text in _named_texts(corpus) if name in wanted}
    if missing := sorted(wanted - texts.keys()):
        raise ValueError(f"{corpus} lacks {len(missing)} judged texts, such as {missing[0]!r}")
    for place, name, text in _named_texts(queries):
        if name in judged:
            sides = {
                f"{side}_passages": [{"text": texts[i]} for i in ids]
                for side, ids in judged[name].items()
            }
            yield place, {"query_id": name, "query": text, **sides}


def from_tfds(
    source: Source, split: str = "train", data_dir: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records that TFDS has prepared in ArrayRecord format; nothing is downloaded."""
    if source.tfds is None:
        raise ValueError(f"{source.name} is not in TFDS; its origin: {source.origin}")
    yield from tfds_reader(source.tfds, split, data_dir)()


def from_hub(
    source: Source, split: str = "train", configuration: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of the Hugging Face hub, streamed; never with code from there."""
    if source.hub is None:
        raise ValueError(
            f"{source.name} is no plain data set on the hub; get its files ({source.origin}) and "
            "name them"
        )
    repository, default = source.hub
    yield from hub_reader(repository, configuration or default, split, streaming=True)()


def _columns(path: Path | str) -> Iterator[tuple[str, list[str]]]:
    for number, line in numbered_lines(str(path)):
        if line.strip():
            yield f"{path}:{number}", line.rstrip("\r\n").split("\t")


def _named_texts(path: Path | str) -> Iterator[tuple[str, str, str]]:
    """(place, id, text), a title in front of its text."""
    if not str(path).endswith(".tsv"):
        for record in read_records(str(path)):
            yield f"{path}:{record.line}", record.id, record.text
        return
    for place, fields in _columns(path):
        if len(fields) != 2:
            raise ValueError(f"{place}: expected two columns, id and text, got {len(fields)}")
        yield place, fields[0], fields[1]
