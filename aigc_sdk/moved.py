"""What is elsewhere since 0.2, and can be imported from where it was for one more minor version, with a warning."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(module: str, *modules: str, **names: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module whose contents were moved.

    Args:
        module: its name.
        modules: where everything in it may be now, in this order.
        names: the module that has each of these.
    """

    def find(name: str) -> Any:
        if not name.startswith("__"):
            for target in (names[name],) if name in names else modules:
                found = importlib.import_module(target)
                if hasattr(found, name):
                    words = f"{module}.{name} is {target}.{name} now, and will be found there alone in the next version"
                    warnings.warn(words, DeprecationWarning, stacklevel=2)
                    return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
