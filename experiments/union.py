"""Every query searched in the documents of all tasks, a harder search than in each corpus.

    python experiments/union.py --model M --backbone E5 --eval EVAL
    python experiments/union.py --model M --backbone E5 --eval EVAL --strict

On the tasks of tables 2 and 3, whose embeddings are used again with the same --workdir, with three
of Tatoeba's languages unless --families names more. A copy of a relevant text in another corpus is
relevant. Its translations, of which the pool holds up to 30, are removed from the rankings: they
contain the answer, but in another language. Writes results/union.*; with --strict translations
count as not relevant, results/union_strict.*.
"""

from mini_tables import measure, parser_of, tasks_of

from m3jax.evaluate.tasks import unite

FAMILIES = (
    "xquad",
    "qa",
    "help",
    "xquad-x",
    "xqa",
    "help-x",
    "tatoeba/deu-eng",
    "tatoeba/swh-eng",
    "tatoeba/jpn-eng",
)
TRANSLATED = (("xquad", "xquad-x"), ("help", "help-x"))

if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--strict", action="store_true", help="translations count as not relevant")
    options = parser.parse_args()
    translated, name = ((), "union_strict") if options.strict else (TRANSLATED, "union")
    measure(options, unite(tasks_of(options, FAMILIES), translated), name)
