"""Token lengths of the texts in a stream of records, computed one chunk ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from m3jax.data.examples import Example
from m3jax.text.tokenizer import Tokenizer

CHUNK_ITEMS = 4096
CHUNK_CHARACTERS = 1 << 20  # the tokenizer needs about 100 bytes of memory per token

Item = TypeVar("Item")


def texts_of(example: Example) -> list[str]:
    """The texts of an example: prompt + query, the positives, the negatives."""
    return [example.prompt + example.query, *example.positives, *example.negatives]


def measured(
    items: Iterable[Item], texts: Callable[[Item], list[str]], tokenizer: Tokenizer | None
) -> Iterator[tuple[list[Item], list[np.ndarray]]]:
    """Yields chunks of items with the lengths of each item's texts, int32, in order.

    Lengths are in tokens, with <s> and </s>, untruncated; in characters without a tokenizer. The
    tokenizer works in its own threads while the caller handles the previous chunk. Measured on 2
    cores over 13 million characters: 3.4 s; 2 processes take 4.0 s, one thread 6.7 s.
    """

    def count(batch: list[list[str]]) -> list[np.ndarray]:
        flat = [text for group in batch for text in group]
        lengths = (
            tokenizer.count(flat) if tokenizer else np.fromiter(map(len, flat), np.int32, len(flat))
        )
        return np.split(lengths, np.cumsum([len(group) for group in batch])[:-1])

    with ThreadPoolExecutor(1) as pool:
        waiting: deque = deque()
        for chunk, groups in _chunks(items, texts):
            waiting.append((chunk, pool.submit(count, groups)))
            if len(waiting) == 2:
                ready, lengths = waiting.popleft()
                yield ready, lengths.result()
        for ready, lengths in waiting:
            yield ready, lengths.result()


def _chunks(
    items: Iterable[Item], texts: Callable[[Item], list[str]]
) -> Iterator[tuple[list[Item], list[list[str]]]]:
    chunk: list[Item] = []
    groups: list[list[str]] = []
    characters = 0
    for item in items:
        chunk.append(item)
        groups.append(texts(item))
        characters += sum(map(len, groups[-1]))
        if len(chunk) == CHUNK_ITEMS or characters >= CHUNK_CHARACTERS:
            yield chunk, groups
            chunk, groups, characters = [], [], 0
    if chunk:
        yield chunk, groups
