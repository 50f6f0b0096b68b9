"""Variables from files in volumes (fileKeyRef): the file is read safely, then the variable found in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from podwright.linux import beneath

MAX_BYTES = 1 << 20
"""Such files hold variables; a container must not make us read its whole disk."""


def read(volume: Path, path: str) -> str:
    """The text of `path` in the directory `volume`; links are followed as in a container whose root it is.

    FileNotFoundError; OSError for what is no regular file of at most MAX_BYTES. Bytes that are no UTF-8 come
    as surrogates. Blocks.
    """
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A pipe that nobody writes to must not hold us.
        fd = beneath.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"{path} is longer than {MAX_BYTES} bytes")
    return content.decode(errors="surrogateescape")


def value(text: str, key: str) -> str | None:
    """The value of `key`; None where no line sets it, "" where one sets nothing.

    A line is NAME='VALUE', with nothing between the name, the sign and the value; the value may go over
    several lines and is taken as it is. Empty lines, "#" lines and what follows a value after "#" are
    comments. ValueError names the line that is none of this, if it stands before the key's.
    """
    rest = [line.removesuffix("\r") for line in text.split("\n")]
    lines = iter(enumerate(rest, 1))
    for number, line in lines:
        line = line.lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, sign, given = line.partition("=")
        if not sign:
            raise ValueError(_fault(number, "missing '='"))
        if not name.strip(" \t"):
            raise ValueError(_fault(number, "empty variable name"))
        if name != name.rstrip(" \t"):
            raise ValueError(_fault(number, "whitespace before '=' is not allowed"))
        if given[:1] in (" ", "\t"):
            # As in a shell: what follows is a command's name, and the variable is empty.
            content = ""
        elif given.startswith("'"):
            content, after = given[1:], number
            while "'" not in content:
                after, more = next(lines, (0, ""))
                if not after:
                    raise ValueError(
                        f"invalid environment variable format starting at line {number}: "
                        "unclosed single quote"
                    )
                content += "\n" + more
            content, _, comment = content.partition("'")
            comment = comment.lstrip(" \t")
            if comment and not comment.startswith("#"):
                raise ValueError(_fault(after, "unexpected content after closing quote"))
        else:
            raise ValueError(_fault(number, "value must be enclosed in single quotes"))
        if name == key:
            return content
    return None


def _fault(number: int, what: str) -> str:
    return f"invalid environment variable format at line {number}: {what}"
