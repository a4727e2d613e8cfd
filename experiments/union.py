"""Every query against the documents of all tasks at once: small pools hide differences.

    python experiments/union.py --model M --backbone E5 --eval EVAL

The tasks of tables 2 and 3, whose embeddings serve again where --work is the same. A copy of the
relevant text in another corpus is relevant, its translations are not, and stand in the way of
what searches across languages. Writes results/union.*.
"""

from mini_tables import measure, parser_of, tasks_of

from m3jax.evaluate.tasks import unite

FAMILIES = ("xquad", "qa", "help", "xquad-x", "xqa", "help-x", "tatoeba")

if __name__ == "__main__":
    options = parser_of(__doc__).parse_args()
    measure(options, unite(tasks_of(options, FAMILIES)), "union")
