"""What the small format of the bundled model costs: int8 beside the float32 weights it came from.

    python experiments/bundle_loss.py --float WORK/merged --eval EVAL [--model m3-mini]

Family help-x of EVAL (help pages, titles in 32 locales, pages in English), both models with the
same weights of the hybrid. Writes results/bundle_loss.json.
"""

import dataclasses
import json
from pathlib import Path

from mini_tables import M3_METHODS, m3_settings, parser_of, tasks_of, tell

from m3jax import M3Embedder, pretrained
from m3jax.evaluate.averages import summarise
from m3jax.evaluate.run import evaluate

MEASURE = "nDCG@10"

if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--float", dest="unquantised", required=True)
    options = parser.parse_args()
    tasks = tasks_of(options, ("help-x",))
    weights, found = pretrained.read_fusion(pretrained.resolve(options.model)), {}
    for name, source in (("float32", options.unquantised), ("int8", options.model)):
        loaded = pretrained.load(source)
        model = M3Embedder(dataclasses.replace(loaded, fusion=weights))
        settings = m3_settings(options, methods=M3_METHODS)
        results = evaluate(model, tasks, options.work, settings, tell=tell)
        levels = summarise(results).overall[MEASURE]["all"]
        found[name] = {method: round(100 * levels[method].value, 2) for method in M3_METHODS}
    about = {"measure": MEASURE, "tasks": [task.name for task in tasks],
             "max_queries": options.max_queries, "model": Path(options.model).name}  # fmt: skip
    result = about | found
    print(json.dumps(result, indent=1))
    text = json.dumps(result, indent=1) + "\n"
    (options.results / "bundle_loss.json").write_text(text, encoding="utf-8")
