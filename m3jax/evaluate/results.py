"""One result: a method on the queries of a set, with every query's values and the protocol.

Results lie in files of their own, so that a run that was stopped goes on and one with another
method keeps what is there: OUTPUT/results/TASK.SET.METHOD.KEY.json, KEY a hash of the protocol.
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
# Parts of a protocol that describe the circumstances, not what was computed.
CIRCUMSTANCES = ("versions", "machine", "model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one method scored on one query set."""

    task: str
    family: str
    query_set: str  # "" where the task has only one
    language: str
    method: str
    primary: str  # the measure that tables show first
    queries: list[str]
    languages: list[str]  # of each query
    values: dict[str, list[float]]  # measure -> one value a query
    protocol: dict[str, Any]
    seconds: float  # of the search, encoding not counted

    @property
    def measures(self) -> dict[str, float]:
        """Means over queries."""
        return {name: float(np.mean(values)) for name, values in self.values.items()}

    @property
    def by_language(self) -> dict[str, dict[str, float]]:
        """Means over the queries of each language."""
        rows = np.array(self.languages)
        return {
            language: {
                name: float(np.mean(np.array(values)[rows == language]))
                for name, values in self.values.items()
            }
            for language in dict.fromkeys(self.languages)
        }


def path_of(output: Path, task: str, query_set: str, method: str, protocol: dict[str, Any]) -> Path:
    """Where the result of this very protocol lies."""
    former = [old for old, name in FORMER_NAMES.items() if name == method]
    paths = [_path_of(output, task, query_set, name, protocol) for name in (method, *former)]
    return next((path for path in paths if path.is_file()), paths[0])


def _path_of(
    output: Path, task: str, query_set: str, method: str, protocol: dict[str, Any]
) -> Path:
    identity = {k: v for k, v in protocol.items() if k not in CIRCUMSTANCES} | {"format": VERSION}
    text = json.dumps([task, query_set, method, identity], sort_keys=True, ensure_ascii=False)
    key = hex_digest(text, size=6)
    name = ".".join(part for part in (task, query_set, method) if part)
    return output / "results" / f"{re.sub(r'[^A-Za-z0-9.+_-]', '--', name)}.{key}.json"


def write(path: Path, result: Result) -> None:
    """Writes it, whole or not at all; means and languages stand first, for readers."""
    document = {"format": "m3jax-result", "version": VERSION, "measures": result.measures,
                "by_language": result.by_language} | dataclasses.asdict(result)  # fmt: skip
    with replace_file(path) as stream:
        json.dump(document, stream, ensure_ascii=False, indent=None, separators=(",", ":"))


def read(path: Path) -> Result | None:
    """The result, or None where there is none; ValueError for a file that is damaged."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["method"] = FORMER_NAMES.get(document["method"], document["method"])
        fields = [field.name for field in dataclasses.fields(Result)]
        return Result(**{name: document[name] for name in fields})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it, and it is computed again"
        ) from error
