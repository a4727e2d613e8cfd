"""Every query against the documents of all tasks at once: small pools hide differences.

    python experiments/union.py --model M --backbone E5 --eval EVAL
    python experiments/union.py --model M --backbone E5 --eval EVAL --strict

The tasks of tables 2 and 3, whose embeddings serve again where --work is the same; of Tatoeba's
sentences three languages, unless --families names more. A copy of the relevant text in another
corpus is relevant. Its translations, which the pool holds in up to 30 languages, are taken out of
the results: they answer as well, in a language that was not asked for. Writes results/union.*; with
--strict they stay and count as wrong, results/union_strict.*.
"""

from mini_tables import measure, parser_of, tasks_of

from m3jax.evaluate.tasks import unite

FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x",
            "tatoeba/deu-eng", "tatoeba/swh-eng", "tatoeba/jpn-eng")  # fmt: skip
PARALLEL = (("xquad", "xquad-x"), ("help", "help-x"))

if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--strict", action="store_true", help="translations count as wrong")
    options = parser.parse_args()
    parallel, name = ((), "union_strict") if options.strict else (PARALLEL, "union")
    measure(options, unite(tasks_of(options, FAMILIES), parallel), name)
