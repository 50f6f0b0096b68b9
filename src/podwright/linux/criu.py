"""CRIU, the program that dumps processes and restores them: where it is, whether it works with this kernel.

OCI runtimes start it themselves, by its name in PATH.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import DeadlineExceeded, FailedPrecondition
from podwright.linux import spawn

NAME = "criu"
TIMEOUT = 30.0
"""Seconds that it may take to look at the kernel."""
LOG_TAIL = 1 << 20
"""Bytes at the end of a log in which its last errors are looked for."""
MOST = 3
"""Errors that are told."""

_ERROR = re.compile(r"Error \([^)]*\): *(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    path: str
    version: str
    """As it says itself, "4.1.1"."""
    fault: str = ""
    """Why it cannot work here; "" when it can."""


class Criu:
    def __init__(self, program: str = NAME) -> None:
        self._program = program
        self._known: tuple[tuple[str, int, int], Found] | None = None
        """What was found, and of which file."""
        self._asking = asyncio.Lock()

    async def find(self) -> Found:
        """The program, asked once. FailedPrecondition when there is none."""
        path = shutil.which(self._program)
        if path is None:
            raise FailedPrecondition(f"{self._program} is not installed (Debian: criu)")
        path = str(Path(path).absolute())
        if Path(path).name != NAME:
            raise FailedPrecondition(f"criu: {path} must be called {NAME!r}: runtimes look for that name")
        status = Path(path).stat()
        key = (path, status.st_mtime_ns, status.st_size)
        async with self._asking:
            if self._known is None or self._known[0] != key:
                self._known = key, await _ask(path)
            return self._known[1]

    async def require(self) -> Found:
        """As `find`; FailedPrecondition also when it does not work with this kernel."""
        if self._known is not None and self._known[1].fault:
            self._known = None  # somebody may have mended that
        found = await self.find()
        if found.fault:
            raise FailedPrecondition(f"criu {found.version} ({found.path}) does not work here: {found.fault}")
        return found

    async def words(self) -> dict[str, str]:
        """For a verbose status."""
        try:
            found = await self.find()
        except FailedPrecondition as error:
            return {"error": str(error)}
        known = {"path": found.path, "version": found.version}
        return known | ({"error": found.fault} if found.fault else {})

    def search_path(self) -> str:
        """The PATH with which a runtime finds this program first."""
        path = shutil.which(self._program)
        usual = os.environ.get("PATH", os.defpath)
        return f"{Path(path).absolute().parent}:{usual}" if path else usual


def complaints(text: str) -> str:
    """The errors in what CRIU has said; the last ones tell most."""
    found = list(dict.fromkeys(each.strip().rstrip(".") for each in _ERROR.findall(text)))
    return "; ".join(found[-MOST:])


def log_complaints(log: Path) -> str:
    """Those of its log file; "" when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_TAIL))
            return complaints(stream.read(LOG_TAIL).decode(errors="replace"))
    except OSError:
        return ""


async def _ask(path: str) -> Found:
    try:
        said = await spawn.run([path, "--version"], timeout=TIMEOUT, limit=1 << 12)
        checked = await spawn.run([path, "check"], timeout=TIMEOUT, limit=1 << 16)
    except (OSError, DeadlineExceeded) as error:
        return Found(path, "?", str(error))
    version = re.search(rb"Version: *(\S+)", said.stdout)
    name = version[1].decode(errors="replace") if version else "?"
    if checked.status == 0:
        return Found(path, name)
    text = (checked.stderr + checked.stdout).decode(errors="replace")
    fault = complaints(text) or text.strip() or f"it ends with status {checked.status}"
    return Found(path, name, f"`criu check`: {fault}")
