"""Windows paths as text, on any host: cleaning them, telling pipes, places in a container.

Not `ntpath`: what it makes of device paths and bare drives changed between Python 3.11 and 3.13.
"""

from __future__ import annotations

from podwright.errors import InvalidArgument

_PIPE = "\\\\.\\pipe\\"
_DEVICES = ("\\\\.\\", "\\\\?\\", "\\??\\")


def is_pipe(path: str) -> bool:
    r"""Whether `path` names a pipe (`\\.\pipe\NAME`). Opening one disturbs whoever listens, so nothing may
    look it up."""
    return path.replace("/", "\\").lower().startswith(_PIPE)


def clean(path: str) -> str:
    r"""`path` with backslashes, without empty, `.` and `..` components as far as they can be resolved.

    A pipe's name is not a path and stays as it is, but for its slashes.
    """
    path = path.replace("/", "\\")
    if is_pipe(path):
        return path
    volume = _volume(path)
    rest = path[len(volume) :]
    rooted = rest.startswith("\\")
    kept: list[str] = []
    for part in rest.split("\\"):
        if part in ("", "."):
            continue
        if part != "..":
            kept.append(part)
        elif kept and kept[-1] != "..":
            kept.pop()
        elif not rooted:
            kept.append(part)
    if rooted:
        return f"{volume}\\" + "\\".join(kept)
    if not kept and volume.startswith("\\"):
        return volume
    return volume + ("\\".join(kept) or ".")


def depth(path: str) -> int:
    """Backslashes of the cleaned path: mounts are ordered by it, parents before children."""
    return clean(path).count("\\")


def destination(path: str, field: str) -> str:
    r"""Where a mount at `path` is in the container: absolute and clean, on C: unless it names a drive.

    A bare drive stays bare ("D:"), for HCS takes `D:.` for an error. Raises InvalidArgument for what is no
    place in a container: nothing at all, the whole of C: (the container's own root), `\\server\share`.
    """
    if not path:
        raise InvalidArgument(field, "is empty")
    cleaned = clean(path)
    volume = _volume(cleaned)
    if volume.startswith("\\"):
        raise InvalidArgument(field, f"{path} is no path on a drive of the container")
    drive, rest = volume or "C:", cleaned[len(volume) :]
    place = drive if volume and rest == "." else clean(f"{drive}\\{rest}")
    if drive.upper() == "C:" and place[2:] in ("", "\\"):
        raise InvalidArgument(
            field, f"destination path can not be C drive ({path}): it is the container's root, mount below it"
        )
    return place


def under_c(path: str) -> str:
    r"""`path` as it is; one that is relative to nothing known is taken from the root of C:."""
    return path if _volume(path.replace("/", "\\")) or path[:1] in ("\\", "/") else f"C:\\{path}"


def is_absolute(path: str) -> bool:
    """Whether `path` names its volume and starts at the root of it."""
    path = path.replace("/", "\\")
    volume = _volume(path)
    return volume.startswith("\\") or (bool(volume) and path[2:3] == "\\")


def _volume(path: str) -> str:
    r"""The leading part that no `..` goes above: `C:`, `\\server\share`, `\\.\device`, `\\?\device`."""
    if path[1:2] == ":":
        return path[:2]
    if path.startswith(_DEVICES):
        return path[:4] + path[4:].split("\\", 1)[0]
    if path.startswith("\\\\"):
        return "\\\\" + "\\".join(path[2:].split("\\", 2)[:2])
    return ""
