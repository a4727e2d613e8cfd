"""Texts of the evaluation data."""

from m3jax.io.jsonl import read_records


def real_texts(data_dir, count: int) -> list[str]:
    """Questions and paragraphs, from one token to more than 512, of every file in turn."""
    files = sorted(data_dir.glob("eval/*/*/corpus.jsonl.gz"))
    languages = {file.parent.name for file in files}
    assert len(languages) >= 20
    streams = [read_records(str(file)) for file in files[:: max(1, len(files) // 60)]]
    texts = ["a", "?", ""]
    while len(texts) < count:
        texts += [record.text for record in (next(s, None) for s in streams) if record]
    return [text[:3000] for text in texts[:count]]
