"""Find the weights of hybrid search on queries with relevance judgements.

Maximises nDCG@10 of w1*dense + w2*sparse + w3*multi-vector over the candidates of the method: a
grid over weights that add up to 1, then finer steps around the best. Judge the result on queries
that it was not tuned on. With --kinds (languages, domains, tasks: a field of the queries) the mean
over the kinds counts, and no kind may lose more than 0.3 points against its best head alone, or as
little as any weights allow. With --save a model keeps the weights, and every command takes them by
default.
"""

import argparse
import json
from pathlib import Path

from m3jax.cli.options import add_model, open_for_search
from m3jax.search.options import FUSED

EXAMPLES = """\
examples:
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels qrels/dev.tsv
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels dev.tsv --method dense+sparse \\
      --output weights.json
  m3jax tune-weights --index INDEX --queries dev.jsonl --qrels dev.tsv --kinds language \
      --save MODEL
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tune-weights`."""
    parser.add_argument("--index", required=True, metavar="INDEX", help="made by m3jax index")
    add_model(parser, required=False)
    parser.add_argument("--queries", required=True, metavar="FILE", help="FILE.jsonl[.gz]")
    parser.add_argument("--qrels", required=True, metavar="FILE", help="BEIR's .tsv or TREC's")
    parser.add_argument("--method", choices=FUSED, default="all")
    parser.add_argument(
        "--kinds", metavar="FIELD", help="of the queries, a string: their kind; none is to lose"
    )
    parser.add_argument("--output", metavar="JSON", help="also write the weights to a file")
    parser.add_argument("--save", metavar="DIR", help="also keep the weights with a model of m3jax")
    parser.add_argument("--verify", action="store_true", help="read and check every file first")


def run(options: argparse.Namespace) -> int:
    """Prints the best weights beside the paper's."""
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
    groups = read_kinds(options.queries, options.kinds) if options.kinds else None
    encoded = encode_queries(index, texts, [options.method])
    pools = candidates(index, encoded, options.method)
    best = tune_weights(pools, ids, index.ids, qrels, groups=groups)
    judged = sum(any(grade > 0 for grade in qrels.get(query, {}).values()) for query in ids)
    w = best.weights
    print(f"{judged} of {len(ids)} queries are judged; {best.tried} weights tried")
    presets = {}
    for name in ("miracl", "mldr"):
        known = preset(name, options.method)
        presets[name] = score_weights(pools, ids, index.ids, qrels, known, groups=groups)
        print(f"{name} weights  {known.dense:g},{known.sparse:g},{known.colbert:g}  "
              f"nDCG@10 {presets[name]:.4f}")  # fmt: skip
    print(f"best  --weights {w.dense:.4g},{w.sparse:.4g},{w.colbert:.4g}  nDCG@10 {best.ndcg:.4f}"
          f"{' in the mean of the kinds' * bool(groups)}")  # fmt: skip
    if best.cost > SLACK:
        print(f"one kind has {100 * best.cost:.1f} points less than by its best head alone: no "
              "weights serve all; consider weights for each kind")  # fmt: skip
    if options.output:
        values = {"method": options.method, "dense": w.dense, "sparse": w.sparse,
                  "colbert": w.colbert, "ndcg_at_10": best.ndcg, "queries": judged,
                  "kinds": sorted(set(groups or [])), "presets": presets}  # fmt: skip
        Path(options.output).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if options.save:
        pretrained.write_fusion(options.save, options.method, w)
        print(f"{options.save} keeps them for {options.method}")
    return 0


def read_kinds(path: str, field: str) -> list[str]:
    """A field of each query; ValueError names the line that lacks it."""
    from m3jax.io.jsonl import numbered_lines, parse_object

    if path == "-":
        raise ValueError("--kinds reads the queries once more: name a file, not -")
    lines = [(number, line) for number, line in numbered_lines(path) if line.strip()]
    kinds = []
    for number, line in lines:
        value = parse_object(line, f"{path}:{number}").get(field)
        if not isinstance(value, str):
            raise ValueError(f"{path}:{number}: {field} (--kinds) must be a string, got {value!r}")
        kinds.append(value)
    return kinds
