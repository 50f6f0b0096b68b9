"""OCI hooks directories: programs that the OCI runtime calls for the containers they are meant for.

One JSON file a hook, schema 1.0.0 of oci-hooks(5): the hook, the stages, and conditions that must all hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.spec.cdi import HOOK_STAGES
from podwright.spec.draft import Json

VERSION = "1.0.0"

# Bracket classes of POSIX regular expressions, which Python's do not have.
_POSIX = {
    "[:alpha:]": "a-zA-Z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:blank:]": r" \t",
    "[:xdigit:]": "0-9a-fA-F",
    "[:punct:]": r"!-/:-@\[-`{-~",
}


class _When(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    always: bool | None = None
    annotations: dict[str, str] = {}
    commands: list[str] = []
    has_bind_mounts: bool | None = None


class _Program(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    version: str
    hook: _Program
    when: _When
    stages: list[str]


class File(NamedTuple):
    """The text of one file of a hooks directory."""

    path: str
    priority: int
    """Place of its directory in the configuration: a file of a later one masks that of the same name."""
    text: bytes


@dataclass(frozen=True, slots=True)
class Hook:
    path: str
    """Of the file."""
    entry: Mapping[str, Json]
    """As it stands in the OCI spec."""
    stages: tuple[str, ...]
    always: bool | None
    annotations: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]
    commands: tuple[re.Pattern[str], ...]
    has_bind_mounts: bool | None

    def matches(self, command: str, annotations: Mapping[str, str], bind_mounts: bool) -> bool:
        """Whether every condition holds for a container with that first argument."""
        if self.always is False or (self.has_bind_mounts is not None and self.has_bind_mounts > bind_mounts):
            return False
        if self.has_bind_mounts is False:
            return False
        for key, value in self.annotations:
            if not any(key.search(name) and value.search(text) for name, text in annotations.items()):
                return False
        return not self.commands or any(pattern.search(command) for pattern in self.commands)


def load(files: Iterable[File]) -> tuple[tuple[Hook, ...], Mapping[str, str]]:
    """The hooks in the order of their calls (file names in lower case), and why files are unusable."""
    chosen: dict[str, File] = {}
    for file in sorted(files, key=lambda each: each.priority):
        name = file.path.rpartition("/")[2]
        if name.endswith(".json"):
            chosen[name] = file
    hooks: list[Hook] = []
    errors: dict[str, str] = {}
    for name in sorted(chosen, key=lambda each: (each.lower(), each)):
        try:
            hooks.append(parse(chosen[name].text, chosen[name].path))
        except InvalidArgument as error:
            errors[chosen[name].path] = str(error)
    return tuple(hooks), errors


def parse(text: bytes, path: str) -> Hook:
    """One file. Raises InvalidArgument that names the file and what is wrong."""
    try:
        file = structs.decode(text, _File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(path, f"is no hook of schema {VERSION}: {error}") from error
    when = file.when
    if file.version != VERSION:
        raise InvalidArgument(path, f"version {file.version!r} is not {VERSION}")
    if not file.hook.path.startswith("/"):
        raise InvalidArgument(path, f"hook.path {file.hook.path!r} is not absolute")
    if file.hook.timeout is not None and file.hook.timeout <= 0:
        raise InvalidArgument(path, f"hook.timeout {file.hook.timeout} is not above 0")
    if not file.stages or set(file.stages) - set(HOOK_STAGES):
        raise InvalidArgument(path, f"stages {file.stages} must be some of {', '.join(HOOK_STAGES)}")
    if when == _When():
        raise InvalidArgument(path, "when has no condition")
    return Hook(
        path=path,
        entry=msgspec.to_builtins(file.hook),
        stages=tuple(dict.fromkeys(file.stages)),
        always=when.always,
        annotations=tuple(
            (_pattern(key, path), _pattern(value, path)) for key, value in when.annotations.items()
        ),
        commands=tuple(_pattern(each, path) for each in when.commands),
        has_bind_mounts=when.has_bind_mounts,
    )


def _pattern(expression: str, path: str) -> re.Pattern[str]:
    for name, inside in _POSIX.items():
        expression = expression.replace(name, inside)
    try:
        return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidArgument(path, f"{expression!r} is no regular expression: {error}") from error
