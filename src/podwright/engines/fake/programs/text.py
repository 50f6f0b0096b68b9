"""Built-in programs that read files or standard input and write text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from podwright.engines.fake.programs.context import CHUNK, Context, encoded
from podwright.engines.fake.programs.options import UsageError, number, parse
from podwright.engines.fake.programs.plain import ESCAPES
from podwright.engines.fake.programs.streams import Stream

FOLLOW_INTERVAL = 1.0
"""Seconds between two looks of `tail -f` at a file."""
_CLASSES = {
    "alnum": b"0-9A-Za-z",
    "alpha": b"A-Za-z",
    "blank": b" \t",
    "cntrl": bytes(range(32)) + b"\x7f",
    "digit": b"0-9",
    "lower": b"a-z",
    "punct": b"!-/:-@[-`{-~",
    "space": b" \t\n\v\f\r",
    "upper": b"A-Z",
    "xdigit": b"0-9A-Fa-f",
}


class _Inputs:
    """The files a program is told to read, or its standard input; complains of those it cannot open."""

    def __init__(self, context: Context, names: list[str]) -> None:
        self._context = context
        self._names = names or ["-"]
        self.code = 0

    async def __aiter__(self) -> AsyncIterator[tuple[str, Stream]]:
        for name in self._names:
            if name == "-":
                yield name, self._context.stdin
                continue
            try:
                stream = self._context.open(name)
            except OSError as error:
                await self._context.error(f"{name}: {error.strerror}")
                self.code = 1
                continue
            try:
                yield name, stream
            finally:
                stream.close()


async def cat(context: Context) -> int:
    try:
        _, names = parse(context.argv[1:], "u")
    except UsageError as error:
        return await _wrong(context, error)
    inputs = _Inputs(context, names)
    async for _, stream in inputs:
        while chunk := await stream.read(CHUNK):
            await context.out(chunk)
    return inputs.code


async def head(context: Context) -> int:
    try:
        options, names = parse(context.argv[1:], "qv", "nc", numbers="n")
        wanted = number(options.get("c", options.get("n", "10")))
    except UsageError as error:
        return await _wrong(context, error)
    inputs, gap = _Inputs(context, names), ""
    async for name, stream in inputs:
        if "v" in options or (len(names) > 1 and "q" not in options):
            await context.out(f"{gap}==> {name} <==\n")
            gap = "\n"
        left = wanted
        while left > 0:
            if "c" in options:
                chunk = await stream.read(min(left, CHUNK))
                left -= len(chunk)
            else:
                chunk = await stream.read(CHUNK, line=True)
                left -= chunk.endswith(b"\n")
            if not chunk:
                break
            await context.out(chunk)
    return inputs.code


async def tail(context: Context) -> int:
    try:
        options, names = parse(context.argv[1:], "fFqv", "nc", numbers="n")
        count = options.get("c", options.get("n", "10"))
        wanted = number(count.removeprefix("+"))
    except UsageError as error:
        return await _wrong(context, error)
    inputs, gap = _Inputs(context, names), ""
    async for name, stream in inputs:
        if "v" in options or (len(names) > 1 and "q" not in options):
            await context.out(f"{gap}==> {name} <==\n")
            gap = "\n"
        content = await context.read_all(stream)
        pieces = _lines(content) if "c" not in options else content
        shown = pieces[max(0, wanted - 1) :] if count.startswith("+") else pieces[-wanted:] if wanted else b""
        await context.out(b"".join(shown) if isinstance(shown, list) else shown)
        if options.keys() & {"f", "F"} and name == (names or ["-"])[-1]:
            await _follow(context, stream)
    return inputs.code


async def _follow(context: Context, stream: Stream) -> None:
    while True:
        while chunk := await stream.read(CHUNK):
            await context.out(chunk)
        await context.clock.sleep(FOLLOW_INTERVAL)


async def wc(context: Context) -> int:
    try:
        options, names = parse(context.argv[1:], "lwcm")
    except UsageError as error:
        return await _wrong(context, error)
    kinds = [kind for kind in "lwc" if kind in options or (kind == "c" and "m" in options)] or ["l", "w", "c"]
    inputs, totals, rows = _Inputs(context, names), dict.fromkeys("lwc", 0), []
    async for name, stream in inputs:
        found, in_word = dict.fromkeys("lwc", 0), False
        while chunk := await stream.read(CHUNK):
            found["l"] += chunk.count(b"\n")
            found["c"] += len(chunk)
            found["w"] += len(chunk.split()) - (in_word and not chunk[:1].isspace())
            in_word = not chunk[-1:].isspace()
        rows.append((found, name))
        for kind in totals:
            totals[kind] += found[kind]
    if len(rows) > 1:
        rows.append((totals, "total"))
    wide = len(kinds) > 1 or len(names) > 1
    for found, name in rows:
        numbers = " ".join(f"{found[kind]:{9 if wide else 0}d}" for kind in kinds)
        await context.out(f"{numbers}{'' if name == '-' else ' ' + name}\n")
    return inputs.code


async def grep(context: Context) -> int:
    try:
        options, words = parse(context.argv[1:], "EFGivqcnolhHswx", "em")
        pattern = options["e"] if "e" in options else words.pop(0) if words else None
        if pattern is None:
            raise UsageError("no pattern")
        limit = number(options["m"]) if "m" in options else -1
        wanted = _pattern(pattern, options)
    except UsageError as error:
        await context.error(str(error))
        return 2
    inputs, any_found = _Inputs(context, words), False
    async for name, stream in inputs:
        found, place = 0, 0
        shown_name = "" if (len(words) < 2 or "h" in options) and "H" not in options else f"{name}:"
        while found != limit and (line := await _line(context, stream)):
            place += 1
            text = line.removesuffix(b"\n")
            match = wanted.search(text)
            if bool(match) == ("v" in options):
                continue
            found += 1
            if "q" in options:
                return 0
            if options.keys() & {"c", "l"}:
                continue
            front = encoded(f"{shown_name}{f'{place}:' if 'n' in options else ''}")
            pieces = [each[0] for each in wanted.finditer(text) if each[0]] if "o" in options else [text]
            await context.out(b"".join(front + piece + b"\n" for piece in pieces))
        any_found = any_found or found > 0
        if "c" in options:
            await context.out(f"{shown_name}{found}\n")
        elif "l" in options and found:
            await context.out(f"{name}\n")
    if inputs.code:
        return 2
    return 0 if any_found else 1


def _pattern(text: str, options: dict[str, str]) -> re.Pattern[bytes]:
    """grep's regular expressions are Python's, but for what stands for itself in a basic one."""
    if "F" in options:
        text = "|".join(re.escape(each) for each in text.split("\n"))
    elif "E" not in options:
        text = re.sub(
            r"\[\^?\]?[^]]*\]|\\.|[+?|(){}]",
            lambda match: (
                match[0]
                if match[0][0] == "["
                else match[0][1]
                if len(match[0]) == 2 and match[0][1] in "+?|(){}"
                else f"\\{match[0]}"
                if len(match[0]) == 1
                else match[0]
            ),
            text,
        )
    text = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], b"").decode(), text)
    if "x" in options:
        text = f"^(?:{text})$"
    elif "w" in options:
        text = rf"\b(?:{text})\b"
    try:
        return re.compile(encoded(text), re.IGNORECASE if "i" in options else 0)
    except re.error as error:
        raise UsageError(f"bad regex '{text}': {error}") from None


async def tee(context: Context) -> int:
    try:
        options, names = parse(context.argv[1:], "ai")
    except UsageError as error:
        return await _wrong(context, error)
    files, code = [], 0
    for name in names:
        try:
            files.append(context.open(name, "a" if "a" in options else "w"))
        except OSError as error:
            await context.error(f"{name}: {error.strerror}")
            code = 1
    try:
        while chunk := await context.stdin.read(CHUNK):
            await context.out(chunk)
            for file in files:
                await file.write(chunk)
    finally:
        for file in files:
            file.close()
    return code


async def tr(context: Context) -> int:
    try:
        options, words = parse(context.argv[1:], "cCds")
        if len(words) < (1 if "d" in options or "s" in options else 2):
            raise UsageError("missing operand")
    except UsageError as error:
        return await _wrong(context, error)
    first = _set(words[0])
    if options.keys() & {"c", "C"}:
        first = bytes(each for each in range(256) if each not in first)
    second = _set(words[1]) if words[1:] else b""
    deleted = first if "d" in options else b""
    table = bytes(range(256))
    if second and "d" not in options:
        padded = second + second[-1:] * (len(first) - len(second))
        table = bytes.maketrans(first, padded[: len(first)])
    squeezed = (second or first) if "s" in options else b""
    last = b""
    while chunk := await context.stdin.read(CHUNK):
        made = chunk.translate(table, deleted)
        if squeezed:
            made = re.sub(rb"([" + re.escape(squeezed) + rb"])\1+", rb"\1", last + made)[len(last) :]
            last = made[-1:] or last
        await context.out(made)
    return 0


def _set(text: str) -> bytes:
    """The bytes that a set of tr(1) names, ranges and classes written out."""
    text = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], b"").decode(), text)
    found = bytearray()
    units: list[tuple[int, bool]] = []
    for match in re.finditer(rb"\\([0-7]{1,3})|\\(.)|(.)", encoded(text), re.DOTALL):
        if match[1]:
            units.append((int(match[1], 8) & 0xFF, True))
        elif match[2]:
            units.append((ESCAPES.get(match[2].decode(errors="replace"), match[2][0]), True))
        else:
            units.append((match[3][0], False))
    place = 0
    while place < len(units):
        start, _ = units[place]
        if place + 2 < len(units) and units[place + 1] == (0x2D, False) and units[place + 2][0] >= start:
            found += bytes(range(start, units[place + 2][0] + 1))
            place += 3
        else:
            found.append(start)
            place += 1
    return bytes(found)


async def sort(context: Context) -> int:
    try:
        options, names = parse(context.argv[1:], "nru")
    except UsageError as error:
        return await _wrong(context, error)
    inputs, lines = _Inputs(context, names), list[bytes]()
    async for _, stream in inputs:
        content = await context.read_all(stream)
        lines += content.removesuffix(b"\n").split(b"\n") if content else []
    lines.sort()
    if "n" in options:
        lines.sort(key=_leading_number)
    if "r" in options:
        lines.reverse()
    if "u" in options:
        lines = list(dict.fromkeys(lines))
    await context.out(b"".join(line + b"\n" for line in lines))
    return 2 if inputs.code else 0


def _leading_number(line: bytes) -> float:
    match = re.match(rb"\s*-?\d+(?:\.\d*)?", line)
    return float(match[0]) if match else 0.0


async def _line(context: Context, stream: Stream) -> bytes:
    parts: list[bytes] = []
    while chunk := await stream.read(CHUNK, line=True):
        parts.append(chunk)
        if chunk.endswith(b"\n"):
            break
        context.hold(sum(map(len, parts)))
    return b"".join(parts)


def _lines(content: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


async def _wrong(context: Context, error: UsageError) -> int:
    await context.error(str(error))
    return 1
