"""Public names of a package, imported when first used."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names live in its modules.

    `names` maps a module, relative to `package`, to the names it defines. Importing the package
    imports none of them, so that `import m3jax` and `m3jax --help` stay fast (PEP 562).
    """
    home = {name: module for module, members in names.items() for name in members}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return get, lambda: sorted(home)
