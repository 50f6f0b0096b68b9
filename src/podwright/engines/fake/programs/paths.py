"""Built-in programs that make, list and remove files."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from podwright.engines.fake.programs.context import Context
from podwright.engines.fake.programs.options import UsageError, parse


async def touch(context: Context) -> int:
    def touch(path: str, options: dict[str, str]) -> None:
        if "c" not in options or context.kind(path) is not None:
            context.open(path, "a").close()

    return await _each(context, "c", touch, "{}")


async def mkdir(context: Context) -> int:
    def make(path: str, options: dict[str, str]) -> None:
        full = context.path(path)
        missing = [full]
        if "p" in options:
            while (parent := posixpath.dirname(missing[-1])) != missing[-1] and not context.kind(parent):
                missing.append(parent)
            if (kind := context.kind(full)) is not None and kind.letter == "d":
                return
        for each in reversed(missing):
            context.files.make_directory(each)

    return await _each(context, "p", make, "can't create directory '{}'")


async def rmdir(context: Context) -> int:
    return await _each(context, "", lambda path, _: context.files.remove(context.path(path)), "'{}'")


async def rm(context: Context) -> int:
    def remove(path: str, options: dict[str, str]) -> None:
        full = context.path(path)
        kind = context.kind(full)
        if kind is None and "f" in options:
            return
        if kind is not None and kind.letter == "d":
            if not options.keys() & {"r", "R"}:
                raise IsADirectoryError(21, "is a directory")
            for name in context.files.names(full):
                remove(posixpath.join(full, name), options)
        context.files.remove(full)

    return await _each(context, "rRf", remove, "can't remove '{}'")


async def ls(context: Context) -> int:
    try:
        options, operands = parse(context.argv[1:], "1aAldF")
    except UsageError as error:
        await context.error(str(error))
        return 1
    code, lines = 0, list[str]()
    for path in operands or ["."]:
        full = context.path(path)
        kind = context.kind(full)
        if kind is None:
            await context.error(f"{path}: No such file or directory")
            code = 1
        elif kind.letter == "d" and "d" not in options:
            if len(operands) > 1:
                lines += [*([""] if lines else ()), f"{path}:"]
            names = context.files.names(full)
            if "a" in options:
                names = [".", "..", *names]
            elif "A" not in options:
                names = [each for each in names if not each.startswith(".")]
            lines += [_row(context, posixpath.join(full, name), name, options) for name in names]
        else:
            lines.append(_row(context, full, path, options))
    await context.out("".join(f"{line}\n" for line in lines))
    return code


def _row(context: Context, path: str, name: str, options: dict[str, str]) -> str:
    kind = context.kind(path) if options.keys() & {"l", "F"} else None
    if kind is None:
        return name
    shown = f"{name}/" if "F" in options and kind.letter == "d" else name
    if "l" not in options:
        return shown
    mode = {"d": "drwxr-xr-x", "c": "crw-rw-rw-"}.get(kind.letter, "-rw-r--r--")
    mode = mode.replace("-rw-r--r--", "-rwxr-xr-x") if kind.executable else mode
    user = context.inside.command
    return f"{mode}    1 {user.uid:<8} {user.gid:<8} {kind.size:9d} {shown}"


async def _each(context: Context, flags: str, act: Callable[[str, dict[str, str]], None], what: str) -> int:
    """Do it to each operand; complain of those that refuse, `what` it was put in front."""
    try:
        options, operands = parse(context.argv[1:], flags)
        if not operands and "f" not in options:
            raise UsageError("missing operand")
    except UsageError as error:
        await context.error(str(error))
        return 1
    code = 0
    for path in operands:
        try:
            act(path, options)
        except OSError as error:
            await context.error(f"{what.format(path)}: {error.strerror}")
            code = 1
    return code
