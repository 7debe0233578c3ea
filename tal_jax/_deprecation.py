"""Old names of public things, which work for one more release."""

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` for names that have been replaced.

    >>> __getattr__ = renamed("math", {"tau2": "tau"})

    Args:
      module: `__name__` of the module.
      names: the new name in the same module by old name.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = names[name]
        message = f"{module}.{name} is now {module}.{new}; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], new)

    return get
