"""Results on disk, one file each: OUTPUT/results/TASK.SET.METHOD.KEY.json.

KEY is a hash of the protocol. A result with the same protocol is read, not computed again: an
evaluation that was interrupted continues, and one with more methods computes only the new ones.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from m3jax.config import FORMER_NAMES
from m3jax.io.atomic import replace_file
from m3jax.io.hashing import hex_digest

VERSION = 1
# Fields of a protocol that describe the environment; they are not part of KEY.
ENVIRONMENT = ("versions", "machine", "model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The values of one method on one query set, by query, with the protocol."""

    task: str
    family: str
    query_set: str  # "" if the task has only one
    language: str
    method: str
    primary: str  # the measure that tables show first
    queries: list[str]
    languages: list[str]  # of each query
    values: dict[str, list[float]]  # measure -> one value a query
    protocol: dict[str, Any]
    seconds: float  # of the search, without encoding

    @property
    def name(self) -> str:
        """TASK, or TASK:SET if the task has several query sets."""
        return f"{self.task}:{self.query_set}" if self.query_set else self.task

    @property
    def measures(self) -> dict[str, float]:
        """Measure -> mean over queries."""
        return {name: float(np.mean(values)) for name, values in self.values.items()}

    @property
    def by_language(self) -> dict[str, dict[str, float]]:
        """Language -> measure -> mean over the queries in it."""
        rows = np.array(self.languages)
        return {
            language: {
                name: float(np.mean(np.array(values)[rows == language]))
                for name, values in self.values.items()
            }
            for language in dict.fromkeys(self.languages)
        }


def path_of(output: Path, task: str, query_set: str, method: str, protocol: dict[str, Any]) -> Path:
    """The file of the result with this protocol; an existing one may have a former method name."""
    former = [old for old, name in FORMER_NAMES.items() if name == method]
    paths = [_path_of(output, task, query_set, name, protocol) for name in (method, *former)]
    return next((path for path in paths if path.is_file()), paths[0])


def _path_of(
    output: Path, task: str, query_set: str, method: str, protocol: dict[str, Any]
) -> Path:
    identity = {k: v for k, v in protocol.items() if k not in ENVIRONMENT} | {"format": VERSION}
    text = json.dumps([task, query_set, method, identity], sort_keys=True, ensure_ascii=False)
    key = hex_digest(text, size=6)
    name = ".".join(part for part in (task, query_set, method) if part)
    return output / "results" / f"{re.sub(r'[^A-Za-z0-9.+_-]', '--', name)}.{key}.json"


def write(path: Path, result: EvaluationResult) -> None:
    """Writes a result, replacing an older file; means come first, for readers of the file."""
    document = {
        "format": "m3jax-result",
        "version": VERSION,
        "measures": result.measures,
        "by_language": result.by_language,
    } | dataclasses.asdict(result)
    with replace_file(path) as stream:
        json.dump(document, stream, ensure_ascii=False, indent=None, separators=(",", ":"))


def read(path: Path) -> EvaluationResult | None:
    """The result in a file, or None if it is missing. Raises ValueError if it is damaged."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["method"] = FORMER_NAMES.get(document["method"], document["method"])
        fields = [field.name for field in dataclasses.fields(EvaluationResult)]
        return EvaluationResult(**{name: document[name] for name in fields})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it to compute the result again"
        ) from error
