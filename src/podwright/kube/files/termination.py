"""The last words of a container: what it left in its message file, or, where its policy says so and it has
failed, the end of its log. The rules are the kubelet's. All of it blocks, but for `cut`."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from podwright.errors import InvalidArgument
from podwright.logs import lines
from podwright.wire import cri_pb2 as cri

MAX_BYTES = 4096
"""Of the file's end."""
LOG_LINES, LOG_BYTES = 80, 2048
"""Of the log's end."""
POD_BYTES = 12 << 10
"""Of all containers' messages together: each may have its part, however long the others are."""

PATH = "io.kubernetes.container.terminationMessagePath"
POLICY = "io.kubernetes.container.terminationMessagePolicy"
"""Annotations of a container that a kubelet, or podwright, made."""
FALLBACK = "FallbackToLogsOnError"

_NEVER_RAN = ("ContainerCannotRun", "StartError")
"""Reasons of containers that have no log."""
_CHUNK = 1 << 14


def read_termination_message(status: cri.ContainerStatus, policy: str = "", log_path: Path | str = "") -> str:
    """The words of a container that has ended, "" when there are none; what the runtime says (the status's
    `message`) is not among them. It raises nothing: what cannot be read is said in the words' place.

    By default the policy is that of the container's annotations, and the log where its status has it.
    """
    if status.state != cri.CONTAINER_EXITED:
        return ""
    fallback = (
        (policy or status.annotations.get(POLICY)) == FALLBACK
        and status.exit_code != 0
        and status.reason not in _NEVER_RAN
    )
    path = status.annotations.get(PATH, "")
    source = next((one.host_path for one in status.mounts if path and one.container_path == clean(path)), "")
    if source:
        try:
            words = _end_of_file(Path(source))
        except FileNotFoundError:
            words = ""
        except OSError as error:
            return f"Error on reading termination log {source}: {error.strerror}"
        if words or not fallback:
            return words
    if not fallback:
        return ""
    try:
        return _end_of_log(Path(log_path or status.log_path))
    except OSError as error:
        return f"Error on reading termination message from logs: {error}"


def clean(path: str) -> str:
    """Where a path of a manifest is mounted: absolute, without doubled slashes, "." and "..". Pure."""
    return posixpath.normpath("/" + path.lstrip("/"))


def cut(message: str, containers: int) -> str:
    """The part of `message` that may stay in the status of a pod of so many `containers`."""
    limit = POD_BYTES // max(1, containers)
    raw = message.encode(errors="surrogateescape")
    return message if len(raw) <= limit else raw[:limit].decode(errors="ignore")


def _end_of_file(path: Path) -> str:
    # Whatever a container or another runtime has made of it: nothing may hold us.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_BYTES))
        return file.read(MAX_BYTES).decode(errors="replace")


def _end_of_log(path: Path) -> str:
    """Records count, not lines: where a line was too long for one, each of its parts does."""
    with path.open("rb") as file:
        begin = file.seek(0, os.SEEK_END)
        content = b""
        while begin and content.count(b"\n") <= LOG_LINES:
            end, begin = begin, max(0, begin - _CHUNK)
            file.seek(begin)
            content = file.read(end - begin) + content
    # Without its first part a record cannot be read; there are enough without it.
    records = content.splitlines(keepends=True)[1 if begin else 0 :][-LOG_LINES:]
    text = b"".join(_text(record) for record in records if record.endswith(b"\n"))
    return text[-LOG_BYTES:].decode(errors="replace")


def _text(record: bytes) -> bytes:
    try:
        line = lines.parse(record.removesuffix(b"\n"))
    except InvalidArgument:
        return b""
    return line.text + (b"" if line.partial else b"\n")
