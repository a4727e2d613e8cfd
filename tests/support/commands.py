"""The command line in a process."""

import os
import subprocess
import sys


def run(*arguments, stdin=None, code=0) -> str:
    """Runs `python -m m3jax`; returns what it printed, on both streams."""
    out = subprocess.run(
        [sys.executable, "-m", "m3jax", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert out.returncode == code, out.stdout + out.stderr
    assert "Traceback" not in out.stderr
    return out.stdout + out.stderr


def environment() -> dict[str, str]:
    return os.environ | {"M3JAX_CACHE_DIR": "", "JAX_PLATFORMS": "cpu"}
