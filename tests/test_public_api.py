"""What users import: light, documented, and the same in the package, notebooks and README."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import m3jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "m3jax"
PACKAGES = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
ROOMS = {*PACKAGES, *(p.stem for p in PACKAGE.glob("*.py"))}


def test_import_is_light():
    """Neither JAX nor NumPy, and fast: the best of three processes."""
    code = (
        "import time; start = time.perf_counter(); import m3jax; "
        "print(time.perf_counter() - start); import sys; "
        "assert not {'jax', 'numpy', 'transformers'} & set(sys.modules)"
    )
    run = [sys.executable, "-c", code]
    seconds = [
        float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(seconds) < 0.1


def test_every_public_name_exists_and_is_documented():
    assert sorted(m3jax.__all__) == dir(m3jax)
    for name in m3jax.__all__:
        value = getattr(m3jax, name)
        assert value.__doc__, name
    assert not set(m3jax.__all__) & ROOMS, "a public name hides a room"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_declares_its_public_names(package):
    module = importlib.import_module(f"m3jax.{package}")
    if package == "cli":  # no Python interface
        return
    assert module.__doc__ and module.__all__
    submodules = {p.stem for p in (PACKAGE / package).iterdir() if p.stem != "__init__"}
    for name in module.__all__:
        assert hasattr(module, name), name
        assert name not in submodules, f"{name} hides m3jax.{package}.{name}"


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="module 'm3jax' has no attribute 'nothing'"):
        m3jax.nothing  # noqa: B018


def _imports(code: str) -> set[str]:
    """Modules of m3jax that code imports from."""
    lines = [line for line in code.splitlines() if not line.lstrip().startswith(("%", "!"))]
    found = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "m3jax"}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_notebooks_import_from_m3jax_alone(path):
    assert _imports(path.read_text(encoding="utf-8")) <= {"m3jax"}


def test_readme_imports_from_m3jax_alone():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert _imports(block) <= {"m3jax"}
