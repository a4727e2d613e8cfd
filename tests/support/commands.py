"""The command line in a process."""

import os
import shlex
import subprocess
import sys

from m3jax.cli.main import main


def run(*arguments, stdin=None, code=0) -> str:
    """Runs `python -m m3jax`; returns what it printed, on both streams."""
    out = subprocess.run(
        [sys.executable, "-m", "m3jax", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert out.returncode == code, out.stdout + out.stderr
    assert "Traceback" not in out.stderr
    return out.stdout + out.stderr


def run_here(line: str) -> int:
    """`m3jax LINE` in this process; returns its exit status."""
    return main(shlex.split(line))


def environment() -> dict[str, str]:
    return os.environ | {"M3JAX_CACHE_DIR": "", "JAX_PLATFORMS": "cpu"}
