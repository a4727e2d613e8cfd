"""Compilation by Numba: functions from their arguments' types, without the interpreter's lock."""

import inspect

import numba


def compiled(**options):
    """A decorator: `numba.njit` of the undecorated function, which takes no Python annotations."""
    return lambda function: numba.njit(nogil=True, **options)(inspect.unwrap(function))
