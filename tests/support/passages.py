"""Short passages in three languages, and files of records."""

import gzip
import json

from m3jax.data.sample import sample_passages

# Short ones: few shapes to compile.
PASSAGES = [
    p._replace(text=" ".join(p.text.split()[:16])[:110].strip())
    for p in sample_passages()
    if p.lang in ("en", "fr", "de")
]


def write(path, records):
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
