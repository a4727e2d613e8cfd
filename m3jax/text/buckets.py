"""Padded lengths: few enough to compile each once, close enough to waste little.

Never imports JAX.
"""

import bisect

STEPS_PER_OCTAVE = 4
SMALLEST = 16


def bucket_ladder(max_length: int) -> tuple[int, ...]:
    """Quarter octaves: 16 32 48 64, 80 96 112 128, 160 192 224 256, ... and `max_length` last.

    Neighbours differ by at most a quarter above 64, so a row is at least 80% text there. The
    ladder depends on nothing but `max_length`: the number of shapes to compile is known.
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
    """The smallest bucket that holds `length` tokens; ValueError where none does."""
    place = bisect.bisect_left(ladder, length)
    if place == len(ladder):
        raise ValueError(f"a text of {length} tokens is longer than the last bucket {ladder[-1]}")
    return ladder[place]
