"""[M3 Table 2] at small scale: question and passage in the same language, by language.

    python experiments/table2_multilingual.py --model M --backbone E5 --eval EVAL

On the families xquad, qa and help of EVAL (BEIR's layout). Writes results/table2_multilingual.*.
"""

from mini_tables import measure, parser_of, tasks_of

if __name__ == "__main__":
    options = parser_of(__doc__).parse_args()
    measure(options, tasks_of(options, ("xquad", "qa", "help")), "table2_multilingual")
