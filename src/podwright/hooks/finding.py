"""Where hooks come from: entry points, and files that the configuration names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from podwright.errors import FailedPrecondition
from podwright.hooks import ATTRIBUTE, Hook

GROUP = "podwright.hooks"


def find(files: Sequence[str], points: Iterable[EntryPoint] | None = None) -> list[Hook]:
    """Every hook, in the order they run. FailedPrecondition names the file or entry point that cannot be
    loaded: a node whose rules are missing must not run pods without them."""
    found = list(_of_points(entry_points(group=GROUP) if points is None else points))
    for file in files:
        found += _of_file(Path(file))
    return sorted(found, key=lambda hook: (hook.order, hook.name))


def _of_points(points: Iterable[EntryPoint]) -> Iterator[Hook]:
    for point in points:
        try:
            loaded = point.load()
        except Exception as error:
            raise FailedPrecondition(
                f"hook {point.name} ({point.value}) cannot be loaded: {error}"
            ) from error
        hooks = list(_of_module(loaded, point.name) if isinstance(loaded, ModuleType) else _of(loaded, ""))
        if not hooks:
            raise FailedPrecondition(
                f"hook {point.name}: {point.value} is no function marked with hooks.validate, adjust or watch"
            )
        for hook in hooks:
            yield hook if hook.name else replace(hook, name=point.name)


def _of_file(path: Path) -> list[Hook]:
    _require_safe(path)
    spec = importlib.util.spec_from_file_location(f"podwright_hooks_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FailedPrecondition(f"hooks: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FailedPrecondition(
            f"hooks: {path} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    hooks = list(_of_module(module, path.stem))
    if not hooks:
        raise FailedPrecondition(f"hooks: {path} has no function marked with hooks.validate, adjust or watch")
    return hooks


def _of_module(module: ModuleType, name: str) -> Iterator[Hook]:
    # What a module imported from another is that one's.
    for each in list(vars(module).values()):
        if getattr(each, "__module__", None) == module.__name__:
            yield from _of(each, f"{name}.{getattr(each, '__name__', '')}")


def _of(function: object, name: str) -> Iterator[Hook]:
    for hook in getattr(function, ATTRIBUTE, ()):
        yield replace(hook, name=name)


def _require_safe(path: Path) -> None:
    """The server runs the file's code with all its rights: nobody else may be able to change it."""
    if not path.is_absolute():
        raise FailedPrecondition(f"hooks: {path} is no absolute path")
    try:
        status = path.stat()
    except OSError as error:
        raise FailedPrecondition(f"hooks: {path} cannot be read: {error.strerror}") from error
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise FailedPrecondition(
            f"hooks: {path} can be changed by others: it must belong to root or this user, mode 0644 at most"
        )
