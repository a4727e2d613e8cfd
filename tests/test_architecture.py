"""Shape of the code: which room may import which, how long a file and a function may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "m3jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import rooms of an earlier level, and itself. Every file belongs to a room listed here.
LEVELS = [
    {"lazy"},
    {"types", "config", "io"},
    {"sharding", "distributed", "checkpoint", "text"},
    {"model", "scores", "data"},
    {"losses", "feed"},
    {"convert"},
    {"pretrained"},
    {"embed", "train"},
    {"search", "explain"},
    {"mine", "synthesize", "evaluate"},
    {"cli"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
TOP = {"__init__", "__main__"}  # the public names, and `python -m m3jax`: may import every room
# Packages that only some rooms may import; all others are free.
ONLY_IN = {
    "torch": {"convert", "mine", "synthesize"},
    "sentence_transformers": {"mine"},
    "optax": {"train"},
    "orbax": {"checkpoint", "train"},
}
NO_JAX = {"types", "lazy", "io", "text", "data", "feed"}
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 50, 7
# Signatures that another project gives.
GIVEN = {"embed/flag.py"}
# Lines with the formatter switched off, in the whole repository: the number may only fall.
MAX_FMT_SKIPS = 0


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Every imported module, lazy ones included, names that only type checkers see left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            found |= {f"{module}.{a.name}" for a in node.names} if module == "m3jax" else {module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_keeps_to_its_room(path):
    here = room(path)
    if here in TOP:
        return
    assert here in LEVEL, f"{here} is not in the list of rooms: give it a level"
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "m3jax" and rest and rest[0] != here and rest[0] != "__version__":
            assert rest[0] in LEVEL, f"{name}: {rest[0]} is no room"
            assert LEVEL[rest[0]] < LEVEL[here], f"{here} may not import {name}"
        assert here in ONLY_IN.get(top, {here}), f"{here} may not import {name}"
        assert not (here in NO_JAX and top in ("jax", "flax")), f"{here} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE
    assert path.stem not in ("utils", "helpers", "common", "base", "misc")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name} has {length} lines"


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of parameters of a function, `self` and `cls` not counted."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    bound = names[:1] in (["self"], ["cls"])
    return len(names) - bound + bool(given.vararg) + bool(given.kwarg)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_take_few_parameters(path):
    if str(path.relative_to(PACKAGE)) in GIVEN:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            count = _parameters(node)
            assert count <= MAX_PARAMETERS, f"{node.name} takes {count} parameters"


def test_the_formatter_is_seldom_switched_off():
    folders = ("m3jax", "tests", "experiments", "configs", "notebooks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    mark = "# fmt: " + "skip"
    count = sum(path.read_text(encoding="utf-8").count(mark) for path in files)
    assert count <= MAX_FMT_SKIPS, f"{count} lines with {mark}, {MAX_FMT_SKIPS} allowed"


def test_rooms_without_jax_do_not_load_it():
    import subprocess
    import sys

    files = [path for path in FILES if room(path) in NO_JAX and path.stem != "__init__"]
    modules = [".".join(("m3jax", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in files]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; "
    code += "print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_no_test_module_imports_another():
    """What several need is in tests/support, or a fixture of a conftest.py."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                parts = name.split(".") if not name.startswith("m3jax.") else []
                tests = [p for p in parts if p.startswith("test_") or p == "conftest"]
                assert not tests, f"{path}:{node.lineno} imports {name}"


def test_test_folders_are_rooms():
    """Tests of a room are in the folder of its name; those of a single module at the top level."""
    tests = ROOT / "tests"
    folders = {path.relative_to(tests).parts[0] for path in tests.glob("*/**/*.py")}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - rooms == {"support", "experiments"}
    assert not list((tests / "support").rglob("test_*.py"))
