"""Make training pairs from raw text: extract, clean, and count the dropped pairs by reason.

Extractors and the records they read: title-body {"title", "text"}, title-abstract {"title",
"abstract"}, instruction-output {"instruction", "input"?, "output"} or {"inputs", "targets"},
parallel {"translation": {lang: text, lang: text}}, code-comment {"code", "language"?}. Texts must
be in the script of the record's "lang". The output is a file of training examples.
"""

import argparse

from m3jax.cli.options import add_flags, deprecated_alias

EXAMPLES = """\
examples:
  m3jax data pairs --extractor title-body --input wiki.jsonl.zst --output wiki-pairs.jsonl.gz
  m3jax data pairs --extractor parallel --input 'nllb/*.parquet' --output par.jsonl.gz \\
      --near-duplicates 0
  m3jax data pairs --extractor title-abstract --input papers.jsonl --output pairs.jsonl.gz \\
      --relevance BAAI/bge-m3 --min-relevance 0.4 --report report.json
"""

# Flag, field of `Limits`, type, unit and meaning.
_LIMITS = (
    ("--min-query", "query_chars", int, "CHARS", "shortest query"),
    ("--min-passage", "passage_chars", int, "CHARS", "shortest passage"),
    ("--distinct", "distinct", float, "SHARE", "minimum share of distinct 10-grams; 0: off"),
    ("--script", "script", float, "SHARE", "minimum share of letters in its script; 0: off"),
    (
        *("--near-duplicates", "near_duplicates", float, "JACCARD"),
        "similarity from which passages are duplicates; 0: off",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data pairs`."""
    from m3jax.data.cleaning import Limits
    from m3jax.data.extract import EXTRACTORS

    limits = Limits()
    add = parser.add_argument
    add("--extractor", required=True, choices=sorted(EXTRACTORS), help="the form of the records")
    deprecated_alias(parser, "--kind", "--extractor")
    add("--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs")
    add("--output", required=True, metavar="FILE.jsonl[.gz|.zst]", help="a new file")
    add("--report", metavar="JSON", help="also write the counts to a file")
    add_flags(parser, "--skip-bad")
    for flag, field, kind, unit, meaning in _LIMITS:
        default = getattr(limits, field)
        note = f"{meaning} (default: %(default)s)"
        add(flag, type=kind, default=default, metavar=unit, help=note)
    add(
        "--relevance",
        metavar="MODEL",
        help="drop pairs whose dense score by this model is below --min-relevance",
    )
    add("--min-relevance", type=float, default=0.4, metavar="SCORE", help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    """Writes the pairs, and prints how many each filter dropped."""
    import json
    from collections import Counter
    from pathlib import Path

    from m3jax.cli.tables import counting
    from m3jax.data.cleaning import Limits, clean
    from m3jax.io.atomic import new_file
    from m3jax.io.jsonl import BadRecords

    limits = Limits(
        query_chars=options.min_query,
        passage_chars=options.min_passage,
        distinct=options.distinct,
        script=options.script,
        near_duplicates=options.near_duplicates,
        relevance=options.min_relevance if options.relevance else 0.0,
    )
    relevance = _relevance(options.relevance) if options.relevance else None
    bad, seen, dropped, kept = BadRecords(options.skip_bad), Counter(), Counter(), 0
    with new_file(options.output) as write, counting("pairs kept") as progress:
        found = _extracted(options.extractor, options.input, bad, seen)
        for kept, pair in enumerate(clean(found, limits, dropped, relevance=relevance), start=1):
            write(json.dumps(pair.record(), ensure_ascii=False) + "\n")
            if kept % 1000 == 0:
                progress(kept)
        if not kept:
            raise ValueError(f"all {seen['pairs']:,} pairs were dropped: {dict(dropped)}")
    report = {
        "records": seen["records"],
        "bad": bad.count,
        "pairs": seen["pairs"],
        "kept": kept,
        "dropped": dict(dropped.most_common()),
    }
    if options.report:
        text = json.dumps(report, indent=1) + "\n"
        Path(options.report).write_text(text, encoding="utf-8")
    for reason, count in dropped.most_common():
        print(f"{count:>12,}  {reason}")
    print(f"{kept:>12,}  kept of {seen['pairs']:,} pairs in {seen['records']:,} records")
    return 0


def _extracted(extractor: str, inputs: list[str], bad, seen):
    from m3jax.data.examples import example_files, read_values
    from m3jax.data.extract import EXTRACTORS

    for file in example_files(inputs):
        for place, values in read_values(file, bad):
            seen["records"] += 1
            try:
                found = list(EXTRACTORS[extractor](values))
            except ValueError as error:
                bad(ValueError(f"{place}: {error}"))
                continue
            seen["pairs"] += len(found)
            yield from found


def _relevance(name: str):
    """Inner products of dense vectors of texts truncated to 512 tokens."""
    import numpy as np

    from m3jax.embed.embedder import M3Embedder

    model = M3Embedder.from_pretrained(name)
    length = min(512, model.passage_max_length)

    def scores(queries, passages):
        q = model.encode_queries(list(queries), max_length=length)["dense_vecs"]
        p = model.encode_corpus(list(passages), max_length=length)["dense_vecs"]
        return np.einsum("nd,nd->n", q, p).tolist()

    return scores
