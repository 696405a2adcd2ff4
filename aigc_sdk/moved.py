"""What was moved: it can be imported from where it was until the next minor version, with a warning."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(module: str, *modules: str, **names: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module whose contents were moved.

    Args:
        module: its name.
        modules: where everything in it may be now, in this order.
        names: the module that has each of these; "module:other" where it has another name there.
    """

    def find(name: str) -> Any:
        if not name.startswith("__"):
            for target in (names[name],) if name in names else modules:
                where, _, other = target.partition(":")
                found = importlib.import_module(where)
                if hasattr(found, other or name):
                    words = f"{module}.{name} is {where}.{other or name} now; the next version has it there alone"
                    warnings.warn(words, DeprecationWarning, stacklevel=2)
                    return getattr(found, other or name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
