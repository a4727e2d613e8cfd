"""The loss of quality by quantisation: the bundled int8 model and its float32 weights.

    python experiments/bundle_loss.py --float WORK/merged --eval EVAL [--model m3-mini]

On the family help-x of EVAL (help pages: titles in 32 locales, pages in English), with the same
fusion weights for both models. Writes results/bundle_loss.json.
"""

import dataclasses
import json
from pathlib import Path

from mini_tables import M3_METHODS, m3_options, parser_of, tasks_of
from settings import log

from m3jax import M3Embedder, pretrained
from m3jax.evaluate.averages import summarise
from m3jax.evaluate.run import evaluate_model

MEASURE = "nDCG@10"

if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--float", dest="unquantised", required=True)
    options = parser.parse_args()
    tasks = tasks_of(options, ("help-x",))
    weights, means = pretrained.read_fusion(pretrained.resolve(options.model)), {}
    for name, source in (("float32", options.unquantised), ("int8", options.model)):
        loaded = pretrained.load(source)
        model = M3Embedder(dataclasses.replace(loaded, fusion=weights))
        evaluation_options = m3_options(options, methods=M3_METHODS)
        results = evaluate_model(model, tasks, options.workdir, evaluation_options, log=log)
        levels = summarise(results).overall[MEASURE]["all"]
        means[name] = {method: round(100 * levels[method].value, 2) for method in M3_METHODS}
    about = {
        "measure": MEASURE,
        "tasks": [task.name for task in tasks],
        "max_queries": options.max_queries,
        "model": Path(options.model).name,
    }
    result = about | means
    print(json.dumps(result, indent=1))
    text = json.dumps(result, indent=1) + "\n"
    (options.results / "bundle_loss.json").write_text(text, encoding="utf-8")
