"""Shared by the experiments: directories, commands of m3jax, settings of a working directory."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CONFIGS = Path(__file__).parents[1] / "configs"

log = functools.partial(print, flush=True)


def run(*arguments: Any, **options: Any) -> None:
    """Runs `m3jax ARGUMENTS`. Raises CalledProcessError if it fails.

    An option is a flag: max_length=256 becomes --max-length 256, True a flag without a value, a
    list a repeated flag.
    """
    command = [sys.executable, "-m", "m3jax", *map(str, arguments)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, list) else [value]:
            command += [flag] if item is True else [flag, str(item)]
    subprocess.run(command, check=True)


def check_settings(workdir: Path, **settings: Any) -> None:
    """Writes WORKDIR/settings.json. Raises SystemExit if it holds other settings.

    The outputs in a working directory are used again, which is valid only with equal settings.
    """
    path = workdir / "settings.json"
    current = json.loads(json.dumps(settings, default=str))
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in current if stored.get(name) != current[name]]
        if different:
            name = different[0]
            raise SystemExit(
                f"{workdir} holds outputs with another {name.replace('_', '-')}: "
                f"{stored.get(name)!r}, not {current[name]!r}. Use another --workdir"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(current, indent=1) + "\n", encoding="utf-8")
