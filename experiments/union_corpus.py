"""Tasks whose small pools hide differences, joined: every query against all documents at once.

    python experiments/union_corpus.py --eval EVAL --output UNION [--families xquad qa ...]
    m3jax evaluate --model M --task UNION --output RESULTS

UNION is one task of BEIR's layout: corpus.jsonl.gz with the documents of all tasks, each under
TASK:ID, and one query set a task (FAMILY-TASK[-SET]). Files are
written whole or not at all.
"""

import argparse
import gzip
import json
from pathlib import Path

from m3jax.directories import new_directory
from m3jax.evaluate.tasks import read_tasks

FAMILIES = ("xquad", "xquad-x", "qa", "xqa", "help", "help-x")


def main() -> None:
    """Reads every task and writes the joined one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eval", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--max-queries", type=int, help="a fixed random sample of each set")
    options = parser.parse_args()
    documents = queries = 0
    with new_directory(options.output) as folder:
        (folder / "qrels").mkdir()
        with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as corpus:
            for name in options.families:
                for task in read_tasks(options.eval / name, max_queries=options.max_queries):
                    for record in task.documents():
                        row = {"_id": f"{task.name}:{record.id}", "title": "", "text": record.text}
                        corpus.write(json.dumps(row, ensure_ascii=False) + "\n")
                        documents += 1
                    for found in task.query_sets:
                        write_queries(folder, task.name, found)
                        queries += len(found.ids)
    print(f"{documents:,} documents, {queries:,} queries: {options.output}")


def write_queries(folder: Path, task: str, found) -> None:
    """One query set and its judgements, documents under their new names."""
    name = "-".join(part for part in (*task.split("/"), found.name) if part)
    with gzip.open(folder / f"queries.{name}.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number, text, language in zip(found.ids, found.texts, found.languages, strict=True):
            row = {"_id": number, "text": text, "lang": language}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with open(folder / "qrels" / f"test.{name}.tsv", "w", encoding="utf-8") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        for query in found.ids:
            for document, grade in found.qrels[query].items():
                stream.write(f"{query}\t{task}:{document}\t{grade}\n")


if __name__ == "__main__":
    main()
