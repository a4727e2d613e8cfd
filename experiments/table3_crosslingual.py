"""[M3 Table 3] at small scale: the question in one language, the passages in another.

    python experiments/table3_crosslingual.py --model M --backbone E5 --eval EVAL

On the families xquad-x, xqa, help-x and tatoeba of EVAL. Writes results/table3_crosslingual.*.
"""

from mini_tables import measure, parser_of, tasks_of

if __name__ == "__main__":
    options = parser_of(__doc__).parse_args()
    families = ("xquad-x", "xqa", "help-x", "tatoeba")
    measure(options, tasks_of(options, families), "table3_crosslingual")
