"""The optional packages of trackers."""

from importlib import import_module
from typing import Any

from common.errors import RunError


def needed(module: str, extra: str) -> Any:
    """The module of an optional package. extra: the extra of this project that installs the package.

    Raises RunError with the command that installs the package.
    """
    try:
        return import_module(module)
    except ImportError:
        raise RunError(f"its package is not installed: pip install 'fedmosaic[{extra}]'") from None
