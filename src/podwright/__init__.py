"""podwright: Kubernetes pods from Python.

`open()` gives the library's door to the house; `podwright serve` and `podwright run` are the others.
Nothing is imported until it is asked for, so that short commands stay short.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Pod", "__version__", "errors", "open"]

if TYPE_CHECKING:
    from podwright import errors
    from podwright.library import open
    from podwright.pods import Pod


def __getattr__(name: str) -> Any:
    if name == "open":
        return import_module("podwright.library").open
    if name == "Pod":
        return import_module("podwright.pods").Pod
    if name == "errors":
        return import_module("podwright.errors")
    raise AttributeError(f"module 'podwright' has no attribute {name!r}")
