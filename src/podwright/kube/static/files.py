"""A directory of manifests: what its files say now, and when they may say something else.

Files are looked at by their names, as a kubelet does it: what begins with a dot does not count, and neither
does here what does not end in .yaml, .yml or .json. A file that cannot be understood says what it said last;
what that was is kept on the disk, for a restart must not end its pods.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from podwright.errors import InvalidArgument
from podwright.kube.manifests import kinds, objects, static_pods, workloads
from podwright.kube.manifests.documents import documents, read_text
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import Objects
from podwright.kube.node import Node

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 10 << 20
"""Of one file; the kubelet reads no more either."""
SETTLED = 0.5
"""Seconds after its last change for which a file may be half written, unless it is known to be whole."""

Key = tuple[str, str]
"""Namespace and name of a pod."""
Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the directory says."""

    pods: dict[Key, Manifest] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong, by the path of the file."""
    notes: tuple[str, ...] = ()
    """Fields and objects that have no effect, for people."""
    again: float | None = None
    """In so many seconds a file that was being written can be read."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it was read."""

    pods: tuple[tuple[dict[str, Any], str], ...] = ()
    """Documents, each with its place."""
    objects: tuple[object, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Known:
    signature: Signature = ()
    said: _File | None = None
    """Last; None: nothing that could be understood."""
    fault: str = ""


class ManifestFiles:
    """The files of one directory. All methods block."""

    def __init__(self, directory: Path, node: Node, kept: Path) -> None:
        """`kept`: the directory for what files said last."""
        self.directory = directory
        self._node = node
        self._kept = kept
        self._known: dict[str, _Known] = {}

    def read(self, whole: frozenset[str] = frozenset()) -> Reading:
        """Look at all files; `whole` are names of files that nobody was writing a moment ago.

        A directory that is not there says that there are no pods. Raises OSError when it cannot be looked at.
        """
        try:
            names = sorted(path.name for path in self.directory.iterdir() if _counts(path.name))
        except FileNotFoundError:
            names = []
        again, there = None, []
        for name in names:
            try:
                found = (self.directory / name).stat()
            except FileNotFoundError:
                continue  # it has just gone, or is a link to nothing
            except OSError as error:
                known = self._of(name)
                known.signature, known.fault = (), f"cannot be read: {error.strerror}"
                there.append(name)
                continue
            there.append(name)
            known = self._of(name)
            left = 0.0 if name in whole else _unsettled(found)
            if left and known.signature != _signature(found):
                again = left if again is None else max(again, left)
            else:
                self._look(name, known, found)
        for name in self._known.keys() - set(there):
            del self._known[name]
            self._kept_path(name).unlink(missing_ok=True)
        return replace(self._together(there), again=again)

    def forget_others(self) -> None:
        """Remove what is kept of files that are no more."""
        known = {self._kept_path(name) for name in self._known}
        with suppress(FileNotFoundError):
            for path in list(self._kept.iterdir()):
                if path not in known:
                    path.unlink(missing_ok=True)

    # One file

    def _of(self, name: str) -> _Known:
        if name not in self._known:
            self._known[name] = self._remembered(name)
        return self._known[name]

    def _look(self, name: str, known: _Known, found: os.stat_result) -> None:
        """Read a file unless it is as it was."""
        signature = _signature(found)
        if known.signature == signature:
            return
        path = self.directory / name
        try:
            if not stat.S_ISREG(found.st_mode):
                raise InvalidArgument(str(path), "is no file")
            if found.st_size > MAX_BYTES:
                raise InvalidArgument(str(path), f"has {found.st_size} bytes, more than {MAX_BYTES}")
            text = read_text(path)
            known.said, known.fault = self._parsed(text, str(path)), ""
        except InvalidArgument as error:
            known.fault = _without_path(str(error), str(path))
        else:
            self._keep(name, text)
        known.signature = signature

    def _parsed(self, text: str, path: str) -> _File:
        """InvalidArgument unless every document of it can be used."""
        pods: list[tuple[dict[str, Any], str]] = []
        others: list[object] = []
        notes: list[str] = []
        for tree, place in documents(text, path):
            match kinds.role(tree, place):
                case "object":
                    others.append(objects.from_tree(tree, place))
                case "pod":
                    pods.append((tree, place))
                case "workload":
                    made = workloads.pods(tree, place)
                    pods += [(pod, place) for pod in made.pods]
                    notes += made.notes
                case other:
                    notes.append(other)
        for tree, place in pods:
            notes += self._pod(tree, path, place, Objects()).notes
        return _File(tuple(pods), tuple(others), tuple(f"{path}: {one}" for one in notes))

    def _pod(self, tree: dict[str, Any], path: str, place: str, beside: Objects) -> Manifest:
        return static_pods.from_tree(tree, path, self._node, beside=beside, place=place)

    # All of them

    def _together(self, names: list[str]) -> Reading:
        """Pods find the objects of all files. Of two of one name the first file's counts."""
        pods: dict[Key, Manifest] = {}
        faults = {str(self.directory / name): self._known[name].fault for name in names}
        faults = {path: fault for path, fault in faults.items() if fault}
        files = [(str(self.directory / name), said) for name in names if (said := self._known[name].said)]
        beside = Objects()
        for path, said in files:
            for one in said.objects:
                if one in beside:
                    title = f"{type(one).__name__} {getattr(one, 'name', '')}"
                    faults.setdefault(path, f"{title} is in a file before it, too: that one counts")
                else:
                    beside = beside.adding(one)
        for path, said in files:
            for tree, place in said.pods:
                made = self._pod(tree, path, place, beside)
                key = (made.namespace, made.name)
                if key in pods:
                    first = pods[key].source
                    faults.setdefault(path, f"Pod {'/'.join(key)} is in {first}, too: that one counts")
                else:
                    pods[key] = made
        return Reading(pods, faults, tuple(note for _, said in files for note in said.notes))

    # What they said last

    def _kept_path(self, name: str) -> Path:
        path = str(self.directory / name)
        return self._kept / hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()

    def _keep(self, name: str, text: str) -> None:
        """What cannot be kept is forgotten at the next start: no reason not to run it now."""
        path = self._kept_path(name)
        draft = path.with_name(f".{path.name}")
        with suppress(OSError):
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            draft.replace(path)

    def _remembered(self, name: str) -> _Known:
        try:
            text = self._kept_path(name).read_text(encoding="utf-8")
            return _Known(said=self._parsed(text, str(self.directory / name)))
        except (OSError, UnicodeDecodeError, InvalidArgument):
            return _Known()


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.endswith(SUFFIXES)


def _signature(found: os.stat_result) -> Signature:
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _unsettled(found: os.stat_result) -> float:
    """For how many seconds more the file may be half written."""
    age = time.time() - found.st_mtime
    return SETTLED - age if 0 <= age < SETTLED and stat.S_ISREG(found.st_mode) else 0.0


def _without_path(words: str, path: str) -> str:
    return words.removeprefix(path).lstrip(":, ")


def changes(before: Reading, now: Reading) -> Iterator[tuple[bool, str]]:
    """What is to be told of `now` that was not told before: whether it is a fault, and the words."""
    for path, fault in now.faults.items():
        if before.faults.get(path) != fault:
            yield True, f"{path}: {fault}"
    for path in before.faults.keys() - now.faults.keys():
        yield False, f"{path}: can be used again" if Path(path).exists() else f"{path}: is gone"
    for note in now.notes:
        if note not in before.notes:
            yield False, note
