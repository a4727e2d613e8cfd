"""Tune the weights of hybrid search on queries with relevance judgements.

Maximises nDCG@10 of the weighted sum of the dense, sparse and late-interaction scores over the
candidates of the method: a grid over weights that add up to 1, then finer steps around the best.
Measure the weights on other queries. With --group-by FIELD (a field of the queries: language,
domain, task) the score is the macro average over groups, and no group may lose more than 0.3 points
of nDCG against its best single head (or, if that is impossible, the smallest loss achievable). With
--save the weights are stored in the model's directory and become the default of every command.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from m3jax.cli.options import add_model, deprecated_alias, open_for_search
from m3jax.search.options import FUSED

EXAMPLES = """\
examples:
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels qrels/dev.tsv
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels dev.tsv --method dense+sparse \\
      --output weights.json
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels dev.tsv --group-by language \\
      --save MODEL
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tune-weights`."""
    parser.add_argument("--index", required=True, metavar="INDEX", help="made by m3jax index")
    add_model(parser, required=False)
    parser.add_argument("--queries", required=True, metavar="FILE", help="FILE.jsonl[.gz]")
    parser.add_argument(
        "--qrels",
        required=True,
        metavar="FILE",
        help="judgements: BEIR's .tsv or TREC's four columns",
    )
    parser.add_argument("--method", choices=FUSED, default="all")
    parser.add_argument(
        "--group-by",
        metavar="FIELD",
        help="query field to group by; no group may lose more than 0.3 points",
    )
    deprecated_alias(parser, "--kinds", "--group-by")
    parser.add_argument("--output", metavar="JSON", help="also write the weights to a file")
    parser.add_argument(
        "--save", metavar="DIR", help="also store the weights in a model directory of m3jax"
    )
    parser.add_argument("--verify", action="store_true", help="read and check every file first")


def run(options: argparse.Namespace) -> int:
    """Prints the best weights and the paper's."""
    from m3jax import pretrained
    from m3jax.cli.search import read_queries
    from m3jax.config import M3Config
    from m3jax.io.fields import from_json
    from m3jax.io.trec import read_qrels
    from m3jax.search.fuse import preset
    from m3jax.search.methods import candidates, encode_queries
    from m3jax.search.tune import SLACK, score_weights, tune_weights

    index = open_for_search(options)
    if options.save:
        config = from_json(M3Config, index.manifest["config"])
        pretrained.check_keeps_fusion(options.save, config)
    qrels = read_qrels(options.qrels)
    ids, texts = read_queries(options.queries)
    groups = read_groups(options.queries, options.group_by) if options.group_by else None
    encoded = encode_queries(index, texts, [options.method])
    pools = candidates(index, encoded, options.method)
    best = tune_weights(pools, ids, index.ids, qrels, groups=groups)
    judged = sum(any(grade > 0 for grade in qrels.get(query, {}).values()) for query in ids)
    print(f"{judged} of {len(ids)} queries are judged; {best.tried} weights tried")
    presets = {}
    for name in ("miracl", "mldr"):
        w = preset(name, options.method)
        presets[name] = score_weights(pools, ids, index.ids, qrels, w, groups=groups)
        weights = f"{w.dense:g},{w.sparse:g},{w.colbert:g}"
        print(f"{name} weights  {weights}  nDCG@10 {presets[name]:.4f}")
    w = best.weights
    weights = f"{w.dense:.4g},{w.sparse:.4g},{w.colbert:.4g}"
    average = ", macro average over groups" if groups else ""
    print(f"best  --weights {weights}  nDCG@10 {best.ndcg:.4f}{average}")
    if best.cost > SLACK:
        print(
            f"one group has {100 * best.cost:.1f} points less than with its best single head: no "
            "weights suit all groups; consider weights for each group"
        )
    if options.output:
        values = {"method": options.method} | dataclasses.asdict(w)
        values |= {"ndcg_at_10": best.ndcg, "queries": judged}
        values |= {"kinds": sorted(set(groups or [])), "presets": presets}
        Path(options.output).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if options.save:
        pretrained.write_fusion(options.save, options.method, w)
        print(f"{options.save} stores these weights for {options.method}")
    return 0


def read_groups(path: str, field: str) -> list[str]:
    """A field of each query. Raises ValueError naming the line where it is not a string."""
    from m3jax.io.jsonl import numbered_lines, parse_object

    if path == "-":
        raise ValueError("--group-by reads the queries a second time: name a file, not -")
    groups = []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        value = parse_object(line, f"{path}:{number}").get(field)
        if not isinstance(value, str):
            raise ValueError(
                f"{path}:{number}: {field} (--group-by) must be a string, got {value!r}"
            )
        groups.append(value)
    return groups
