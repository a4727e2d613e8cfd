"""Means over queries, then tasks, then families, with bootstrap intervals at every level.

A task's value is the mean over its query sets, a family's over its tasks, the last over families:
so every level counts the same whatever the number of queries below it. Intervals resample the
queries of each set, one set independently of another (so they are too narrow where sets ask the
same questions in several languages); sets, tasks and families are taken as given.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from m3jax.evaluate.results import Result
from m3jax.evaluate.significance import Comparison, bootstrap_means, compare, interval

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Level:
    """A value with its resampled ones, and how many parts it is the mean of."""

    value: float
    draws: np.ndarray
    parts: int

    def as_json(self) -> dict[str, Any]:
        """{"value", "interval", "parts"}."""
        return {"value": self.value, "interval": list(interval(self.draws)), "parts": self.parts}


Table = dict[str, dict[str, dict[str, Level]]]  # measure -> name -> method -> level


@dataclasses.dataclass(frozen=True)
class Summary:
    """Every level of a set of results."""

    sets: Table  # names are TASK or TASK:SET
    tasks: Table
    families: Table
    overall: Table  # the one name is "all"


def summarise(results: Sequence[Result], seed: int = 0) -> Summary:
    """All levels. A method that is missing on a part is missing on what the part belongs to."""
    sets: Table = {}
    for result in results:
        for measure, values in result.values.items():
            array = np.array(values, np.float64)
            level = Level(
                float(array.mean()), bootstrap_means(array, samples=SAMPLES, seed=seed), len(array)
            )
            row = sets.setdefault(measure, {}).setdefault(set_name(result), {})
            row[result.method] = level
    task_of = {set_name(r): r.task for r in results}
    family_of = {r.task: r.family for r in results}
    tasks = _mean_over(sets, task_of)
    families = _mean_over(tasks, family_of)
    return Summary(
        sets, tasks, families, _mean_over(families, dict.fromkeys(family_of.values(), "all"))
    )


def set_name(result: Result) -> str:
    """TASK, or TASK:SET where the task has several query sets."""
    return f"{result.task}:{result.query_set}" if result.query_set else result.task


def comparisons(results: Sequence[Result], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Paired tests between methods on the primary measure: by query set, and by family.

    A family's test pools the queries of its sets, each as one observation of its own.
    """
    found: dict[str, dict[str, Any]] = {"sets": {}, "families": {}}
    for level, name_of in (("sets", set_name), ("families", lambda result: result.family)):
        for name in dict.fromkeys(name_of(result) for result in results):
            rows = [result for result in results if name_of(result) == name]
            values: dict[str, dict[str, float]] = {}
            for row in rows:
                keys = (f"{set_name(row)} {query}" for query in row.queries)
                numbers = row.values[row.primary]
                values.setdefault(row.method, {}).update(zip(keys, numbers, strict=True))
            common = set.intersection(*(set(some) for some in values.values()))
            order = sorted(common)
            arrays = {m: np.array([some[q] for q in order]) for m, some in values.items()}
            found[level][name] = [as_json(pair) for pair in compare(arrays, seed=seed)]
    return found


def as_json(pair: Comparison) -> dict[str, Any]:
    """A comparison without numbers that JSON lacks: a test that is not defined gives None."""
    return {key: None if value != value else value for key, value in pair._asdict().items()}


def by_language(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """Family -> language -> method -> mean primary value of the family's queries in it."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        for language, value in zip(result.languages, result.values[result.primary], strict=True):
            row = found.setdefault(result.family, {}).setdefault(language, {})
            row.setdefault(result.method, []).append(value)
    return {
        family: {
            language: {method: float(np.mean(values)) for method, values in row.items()}
            for language, row in sorted(languages.items())
        }
        for family, languages in found.items()
    }


def _mean_over(parts: Table, parent_of: dict[str, str]) -> Table:
    whole: Table = {}
    for measure, rows in parts.items():
        groups: dict[str, list[dict[str, Level]]] = {}
        for name, row in rows.items():
            groups.setdefault(parent_of[name], []).append(row)
        whole[measure] = {
            parent: {
                method: _mean([row[method] for row in group])
                for method in group[0]
                if all(method in row for row in group)
            }
            for parent, group in groups.items()
        }
    return whole


def _mean(levels: list[Level]) -> Level:
    """The mean; queries of different parts are resampled independently of one another."""
    draws = [np.random.default_rng(i).permutation(level.draws) for i, level in enumerate(levels)]
    return Level(
        float(np.mean([level.value for level in levels])), np.mean(draws, axis=0), len(levels)
    )
