"""The declared dependencies against the imports, the lowest versions, and the CI workflow."""

import ast
import functools
import importlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted((ROOT / "m3jax").rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}
# Extras that only widen another one or serve development; the package does not import from them.
DEVELOPMENT = {"test", "notebooks", "experiments", "cuda", "tpu"}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in parsed if one.name != "m3jax"}


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {extra: requirements(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
OPTIONAL = {name for extra, some in EXTRAS.items() if extra not in DEVELOPMENT for name in some}
NEED_EXTRA = {"search/kernels"}  # folders that are imported inside functions only


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """(imported module, is the import inside a function), without imports for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, lazy
            yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        yield from imports(node, lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


@functools.cache
def imports_of(path: Path) -> frozenset[tuple[str, bool]]:
    return frozenset(imports(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def distributions() -> dict[str, set[str]]:
    """The distributions that provide a top-level package, by the package's name."""
    found = importlib.metadata.packages_distributions()
    return {package: set(map(canonicalize_name, names)) for package, names in found.items()}


def third_party(path: Path, *, lazy: bool) -> dict[str, set[str]]:
    """Distributions by imported top-level package, for imports at the top or inside functions."""
    tops = {name.partition(".")[0] for name, inside in imports_of(path) if inside == lazy}
    tops -= sys.stdlib_module_names | {"m3jax"}
    return {top: distributions().get(top, {f"no installed distribution has {top}"}) for top in tops}


def needs_extra(path: Path) -> bool:
    """Does the module import a package of an extra at its top, or belong to NEED_EXTRA?"""
    if path.parent.relative_to(ROOT / "m3jax").as_posix() in NEED_EXTRA and path.stem != "__init__":
        return True
    return any(not names & CORE.keys() for names in third_party(path, lazy=False).values())


@pytest.mark.parametrize("name", NAMES)
def test_imports_are_declared(name):
    """Imports at the top of a module are core dependencies, imports in functions may be extras.

    A module that needs an extra at its top may only be imported inside functions, or by such a
    module.
    """
    path = NAMES[name]
    for package, names in third_party(path, lazy=True).items():
        assert names & (CORE.keys() | OPTIONAL), f"{package} is not declared: {names}"
    for package, names in third_party(path, lazy=False).items():
        assert names & (CORE.keys() | OPTIONAL), f"{package} is not declared: {names}"
    if not needs_extra(path):
        for module, inside in imports_of(path):
            if not inside and module in NAMES:
                assert not needs_extra(NAMES[module]), f"{module} needs an extra"


def test_every_core_dependency_is_imported():
    used = {
        distribution
        for path in FILES
        for lazy in (False, True)
        for names in third_party(path, lazy=lazy).values()
        for distribution in names
    }
    assert not CORE.keys() - used


@pytest.mark.parametrize("name", NAMES)
def test_every_module_can_be_imported(name):
    if not name.endswith("__main__"):
        importlib.import_module(name)


def test_an_extra_that_a_message_names_exists():
    for path in FILES:
        for extras in re.findall(r"m3jax\[([^\]]+)\]", path.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= EXTRAS.keys(), f"{path}: {extras}"


def test_the_test_extra_includes_the_others():
    extras = next(
        requirement.extras
        for requirement in map(Requirement, PROJECT["optional-dependencies"]["test"])
        if requirement.name == "m3jax"
    )
    assert extras == EXTRAS.keys() - DEVELOPMENT


def test_lowest_versions_are_the_declared_bounds():
    pins = requirements(
        [
            line
            for line in (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
            if line and not line.startswith("#")
        ]
    )
    tested = dict(CORE)
    for extra in [*(EXTRAS.keys() - DEVELOPMENT), "test"]:
        tested |= EXTRAS[extra]  # test last: it pins PyTorch
    for name, requirement in tested.items():
        bounds = [Version(one.version) for one in requirement.specifier]
        assert len(bounds) == 1, f"{requirement} needs one lower bound"
        [pin] = pins[name].specifier
        assert Version(pin.version) == bounds[0], f"{requirement} is tested with {pin.version}"


def test_version_has_one_source():
    import m3jax

    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    Version(m3jax.__version__)


def test_workflow_runs_the_commands_of_the_readme_on_the_declared_versions():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [
        "python -m pip install . && m3jax quickstart",
        "python -m pip install -e '.[test]' && python -m pytest -n 2",
    ]
    for command in commands:
        assert command in readme
        assert command in workflow
    versions = [re.search(r":: (3\.\d+)$", line) for line in PROJECT["classifiers"]]
    named = [f'"{match[1]}"' for match in versions if match]
    assert f"python: [{', '.join(named)}]" in workflow
