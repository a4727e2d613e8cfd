"""Padded lengths (buckets): few, so that each is compiled once; close, so that little is wasted."""

import bisect

STEPS_PER_OCTAVE = 4
SMALLEST = 16


def bucket_ladder(max_length: int) -> tuple[int, ...]:
    """The buckets up to `max_length`: 16 32 48 64, 80 96 112 128, 160 192 224 256, ...

    There are four buckets per octave, and `max_length` is the last one. Above 64, neighbours differ
    by at most a quarter, so at least 80% of a row is text. The buckets depend on `max_length`
    alone, so the number of compiled shapes is known in advance.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    ladder = []
    octave = SMALLEST * STEPS_PER_OCTAVE
    ladder += range(SMALLEST, octave + 1, SMALLEST)
    while ladder[-1] < max_length:
        step = octave // STEPS_PER_OCTAVE
        ladder += range(octave + step, 2 * octave + 1, step)
        octave *= 2
    kept = [bucket for bucket in ladder if bucket < max_length]
    return (*kept, max_length)


def bucket_of(length: int, ladder: tuple[int, ...]) -> int:
    """The smallest bucket of at least `length` tokens; ValueError if all are smaller."""
    index = bisect.bisect_left(ladder, length)
    if index == len(ladder):
        raise ValueError(f"a text of {length} tokens is longer than the last bucket {ladder[-1]}")
    return ladder[index]
