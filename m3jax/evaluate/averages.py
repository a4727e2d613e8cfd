"""Means over queries, then tasks, then families, with bootstrap intervals at every level.

A task's value is the mean over its query sets, a family's the mean over its tasks, and the overall
value the mean over families, whatever the number of queries below. Intervals resample the queries
of each set independently, so they are too narrow if sets have the same questions in several
languages; sets, tasks and families are fixed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from m3jax.evaluate.results import EvaluationResult
from m3jax.evaluate.significance import Comparison, bootstrap_means, compare, interval

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Level:
    """A mean with its resampled values and the number of parts it averages."""

    value: float
    draws: np.ndarray
    parts: int

    def as_json(self) -> dict[str, Any]:
        """{"value", "interval", "parts"}."""
        return {"value": self.value, "interval": list(interval(self.draws)), "parts": self.parts}


Table = dict[str, dict[str, dict[str, Level]]]  # measure -> name -> method -> level


@dataclasses.dataclass(frozen=True)
class Summary:
    """The means of results at every level."""

    sets: Table  # by `EvaluationResult.name`
    tasks: Table
    families: Table
    overall: Table  # its only name is "all"


def summarise(results: Sequence[EvaluationResult], seed: int = 0) -> Summary:
    """The means at all levels. A method missing from a part is missing from the level above."""
    sets: Table = {}
    for result in results:
        for measure, values in result.values.items():
            array = np.array(values, np.float64)
            level = Level(
                float(array.mean()), bootstrap_means(array, samples=SAMPLES, seed=seed), len(array)
            )
            row = sets.setdefault(measure, {}).setdefault(result.name, {})
            row[result.method] = level
    task_of = {r.name: r.task for r in results}
    family_of = {r.task: r.family for r in results}
    tasks = _mean_over(sets, task_of)
    families = _mean_over(tasks, family_of)
    return Summary(
        sets, tasks, families, _mean_over(families, dict.fromkeys(family_of.values(), "all"))
    )


def comparisons(results: Sequence[EvaluationResult], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Paired tests between methods on the primary measure, by query set and by family.

    A family's test pools the queries of its sets; each query is one observation.
    """
    tests: dict[str, dict[str, Any]] = {"sets": {}, "families": {}}
    for level, name_of in (
        ("sets", lambda result: result.name),
        ("families", lambda result: result.family),
    ):
        for name in dict.fromkeys(name_of(result) for result in results):
            rows = [result for result in results if name_of(result) == name]
            values: dict[str, dict[str, float]] = {}
            for row in rows:
                keys = (f"{row.name} {query}" for query in row.queries)
                numbers = row.values[row.primary]
                values.setdefault(row.method, {}).update(zip(keys, numbers, strict=True))
            common = set.intersection(*(set(by_query) for by_query in values.values()))
            order = sorted(common)
            arrays = {m: np.array([by_query[q] for q in order]) for m, by_query in values.items()}
            tests[level][name] = [as_json(pair) for pair in compare(arrays, seed=seed)]
    return tests


def as_json(pair: Comparison) -> dict[str, Any]:
    """A comparison as JSON: the p-value of a test that is not defined is None."""
    return {key: None if value != value else value for key, value in pair._asdict().items()}


def by_language(results: Sequence[EvaluationResult]) -> dict[str, dict[str, dict[str, float]]]:
    """Family -> language -> method -> mean primary value of the family's queries in it."""
    by_family: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        for language, value in zip(result.languages, result.values[result.primary], strict=True):
            row = by_family.setdefault(result.family, {}).setdefault(language, {})
            row.setdefault(result.method, []).append(value)
    return {
        family: {
            language: {method: float(np.mean(values)) for method, values in row.items()}
            for language, row in sorted(languages.items())
        }
        for family, languages in by_family.items()
    }


def _mean_over(parts: Table, parent_of: dict[str, str]) -> Table:
    means: Table = {}
    for measure, rows in parts.items():
        groups: dict[str, list[dict[str, Level]]] = {}
        for name, row in rows.items():
            groups.setdefault(parent_of[name], []).append(row)
        means[measure] = {
            parent: {
                method: _mean([row[method] for row in group])
                for method in group[0]
                if all(method in row for row in group)
            }
            for parent, group in groups.items()
        }
    return means


def _mean(levels: list[Level]) -> Level:
    """The mean; the queries of different parts are resampled independently."""
    draws = [np.random.default_rng(i).permutation(level.draws) for i, level in enumerate(levels)]
    return Level(
        float(np.mean([level.value for level in levels])), np.mean(draws, axis=0), len(levels)
    )
