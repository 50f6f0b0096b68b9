"""A built-in tar: archives of files and directories, made on standard output and unpacked from standard
input. That is what `podwright cp` and `kubectl cp` need."""

from __future__ import annotations

import posixpath
import tarfile

from podwright.engines.fake.programs.context import CHUNK, Context
from podwright.engines.fake.programs.options import UsageError
from podwright.engines.fake.programs.streams import Stream

_BLOCK = tarfile.BLOCKSIZE
_MODES = {"f": 0o644, "d": 0o755}
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENSIONS = (*_LONG_NAMES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LONGEST_EXTENSION = 1 << 20
"""Bytes of a name or of attributes that stand before a member."""


class _Broken(Exception):
    """It is no archive, or cut short."""


async def tar(context: Context) -> int:
    """`tar cf - [-C DIR] [--no-recursion] NAME...`, `tar xf - [-C DIR]`, `tar tf -`; "-" may be a file."""
    try:
        action, file, directory, flags, names = _options(context.argv[1:])
        home = context.path(directory)
        kind = context.kind(home)
        if kind is None or kind.letter != "d":
            raise UsageError(f"can't change directory to '{directory}': No such file or directory")
        if action == "c" and not names:
            raise UsageError("empty archive")
    except UsageError as error:
        await context.error(str(error))
        return 1
    if file == "-":
        stream = context.fds.get(1 if action == "c" else 0) or Stream()
        stream.share()
    else:
        stream = context.open(file, "w" if action == "c" else "r")
    try:
        if action == "c":
            return await _pack(context, stream, home, names, recursive="no-recursion" not in flags)
        return await _unpack(context, stream, home, names, listing=action == "t", verbose="v" in flags)
    except _Broken as error:
        await context.error(str(error))
        return 1
    finally:
        stream.close()


def _options(words: list[str]) -> tuple[str, str, str, set[str], list[str]]:
    """The action's letter, the archive, the directory, flags, names."""
    rest, flags, names = list(words), set[str](), list[str]()
    action, file, directory = "", "-", "."
    if rest and not rest[0].startswith("-"):
        rest[0] = f"-{rest[0]}"  # the old way of writing it
    while rest:
        word = rest.pop(0)
        if word == "--":
            names += rest
            break
        if word.startswith("--"):
            flags.add(word[2:])
            continue
        if not word.startswith("-") or word == "-":
            names.append(word)
            continue
        for letter in word[1:]:
            if letter in "cxt":
                action = letter
            elif letter in "fC":
                if not rest:
                    raise UsageError(f"option requires an argument -- '{letter}'")
                if letter == "f":
                    file = rest.pop(0)
                else:
                    directory = rest.pop(0)
            elif letter in "vmop":
                flags.add(letter)
            else:
                raise UsageError(f"unrecognized option: {letter}")
    if not action:
        raise UsageError("one of c, x and t is needed")
    return action, file, directory, flags, names


# Making one


async def _pack(context: Context, stream: Stream, home: str, names: list[str], *, recursive: bool) -> int:
    code = 0
    for name in names:
        if context.kind(posixpath.join(home, name)) is None:
            await context.error(f"{name}: No such file or directory")
            code = 1
        else:
            await _add(context, stream, home, name, recursive)
    await stream.write(bytes(2 * _BLOCK))
    return code


async def _add(context: Context, stream: Stream, home: str, name: str, recursive: bool) -> None:
    path = context.path(posixpath.join(home, name))
    kind = context.kind(path)
    if kind is None or kind.letter not in _MODES:
        return
    member = tarfile.TarInfo(name.lstrip("/") or ".")
    member.mode = 0o755 if kind.executable else _MODES[kind.letter]
    member.uid, member.gid = context.inside.command.uid, context.inside.command.gid
    member.mtime = context.clock.now() // 1_000_000_000
    if kind.letter == "d":
        member.type = tarfile.DIRTYPE
        await stream.write(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        if recursive:
            for each in context.files.names(path):
                await _add(context, stream, home, posixpath.join(name, each), recursive)
        return
    member.size = kind.size
    content = context.open(path)
    try:
        await stream.write(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        left = kind.size
        while left and (data := await content.read(min(left, CHUNK))):
            await stream.write(data)
            left -= len(data)
        # What was cut off meanwhile is missing, but the archive stays whole.
        await stream.write(bytes(left + -kind.size % _BLOCK))
    finally:
        content.close()


# Unpacking one


async def _unpack(
    context: Context, stream: Stream, home: str, names: list[str], *, listing: bool, verbose: bool
) -> int:
    code, renamed = 0, ""
    while True:
        block = await _exactly(stream, _BLOCK, may_end=True)
        if not block.strip(b"\0"):
            break
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _Broken(f"invalid tar magic or checksum: {error}") from None
        if member.type in _EXTENSIONS:
            if member.size > LONGEST_EXTENSION:
                raise _Broken(f"a name of {member.size} bytes")
            renamed = _name(member.type, await _content(stream, member.size)) or renamed
            continue
        name, renamed = renamed or member.name, ""
        parts = [each for each in name.split("/") if each not in ("", ".")]
        wanted = not names or any(parts[: len(each)] == each for each in map(_parts, names))
        if ".." in parts:
            await context.error(f"name with '..' skipped: '{name}'")
            wanted, code = False, 1
        if wanted and (listing or verbose):
            await context.out(f"{name}{'/' if member.isdir() and not name.endswith('/') else ''}\n")
        target = None
        if wanted and not listing:
            try:
                target = _made(context, posixpath.join(home, *parts), member)
            except OSError as error:
                await context.error(f"can't create '{name}': {error.strerror}")
                code = 1
        code = await _fill(context, stream, member, name, target) or code
    while await stream.read(CHUNK):
        pass  # padding: whoever writes it shall not die of it
    return code


def _parts(name: str) -> list[str]:
    return [each for each in name.split("/") if each not in ("", ".")]


def _made(context: Context, path: str, member: tarfile.TarInfo) -> Stream | None:
    """What is to be filled, if anything. OSError."""
    missing = []
    at = path if member.isdir() else posixpath.dirname(path)
    while context.kind(at) is None:
        missing.append(at)
        at = posixpath.dirname(at)
    for each in reversed(missing):
        context.files.make_directory(each)
    if member.isdir():
        return None
    if not member.isreg():
        raise OSError(95, "links and devices are not possible here")
    return context.open(path, "w")


async def _fill(
    context: Context, stream: Stream, member: tarfile.TarInfo, name: str, target: Stream | None
) -> int:
    left, code = member.size if member.isreg() else 0, 0
    padding = -left % _BLOCK
    try:
        while left:
            data = await stream.read(min(left, CHUNK))
            if not data:
                raise _Broken("short read")
            left -= len(data)
            if target is not None and not code:
                try:
                    await target.write(data)
                except OSError as error:
                    await context.error(f"{name}: {error.strerror}")
                    code = 1
    finally:
        if target is not None:
            target.close()
    await _exactly(stream, padding)
    return code


async def _content(stream: Stream, size: int) -> bytes:
    found = await _exactly(stream, size)
    await _exactly(stream, -size % _BLOCK)
    return found


def _name(kind: bytes, content: bytes) -> str:
    """The name that an extension gives to the next member; "" when it gives none."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode(errors="surrogateescape")
    if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        while content:
            length = content.partition(b" ")[0]
            if not length.isdigit() or not 0 < int(length) <= len(content):
                raise _Broken("invalid pax header")
            key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
            if key == b"path":
                return value.decode(errors="surrogateescape")
            content = content[int(length) :]
    return ""


async def _exactly(stream: Stream, size: int, *, may_end: bool = False) -> bytes:
    parts, left = [], size
    while left:
        data = await stream.read(min(left, CHUNK))
        if not data:
            if may_end and left == size:
                break
            raise _Broken("short read")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)
