"""Built-in programs that say something, wait, or ask about the process and its container."""

from __future__ import annotations

import asyncio
import posixpath
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime

from podwright.engines.fake.programs.context import Context, encoded
from podwright.engines.fake.programs.options import UsageError, number, parse
from podwright.errors import InvalidArgument
from podwright.spec.signals import parse_signal

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MOST_SECONDS = 1e9
"""Longer than thirty years is for ever."""
ESCAPES = {"a": 7, "b": 8, "e": 27, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_ESCAPE = re.compile(rb"\\(?:0([0-7]{0,3})|x([0-9a-fA-F]{1,2})|([abefnrtv\\])|(c).*)", re.DOTALL)


async def true(context: Context) -> int:
    return 0


async def false(context: Context) -> int:
    return 1


async def exit(context: Context) -> int:
    """Ends with the status it is given."""
    return int(context.argv[1]) & 0xFF if context.argv[1:] and context.argv[1].isdecimal() else 0


async def echo(context: Context) -> int:
    words, newline, escapes = context.argv[1:], True, False
    while words and re.fullmatch("-[neE]+", words[0]):
        for letter in words.pop(0)[1:]:
            newline = newline and letter != "n"
            escapes = letter == "e" or (escapes and letter != "E")
    text = encoded(" ".join(words))
    if escapes:
        text, newline = unescape(text, newline)
    await context.out(text + (b"\n" if newline else b""))
    return 0


def unescape(text: bytes, newline: bool = False) -> tuple[bytes, bool]:
    """Backslash sequences replaced; \\c ends the text and takes the newline away."""
    stopped = False

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal stopped
        octal, hexadecimal, letter, stop = match.groups()
        if stop:
            stopped = True
            return b""
        if letter:
            return bytes([ESCAPES[letter.decode()]])
        return bytes([(int(octal or b"0", 8) if octal is not None else int(hexadecimal, 16)) & 0xFF])

    text = _ESCAPE.sub(replace, text)
    return text, newline and not stopped


def duration(words: Sequence[str]) -> float:
    """Seconds that sleep(1) waits for its arguments: "5", "0.5", "1m", "inf". ValueError."""
    if not words:
        raise ValueError("missing operand")
    total = 0.0
    for word in words:
        if word.lower() in ("inf", "infinity"):
            total = float("inf")
            continue
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)", word, re.ASCII)
        if match is None:
            raise ValueError(f"invalid number '{word}'")
        total += float(match[1]) * _UNITS[match[2]]
    # An event loop's timers have an end.
    return total if total < MOST_SECONDS else float("inf")


async def sleep(context: Context) -> int:
    try:
        seconds = duration(context.argv[1:])
    except ValueError as error:
        await context.error(str(error))
        return 1
    if seconds < float("inf"):
        await context.clock.sleep(seconds)
        return 0
    return await pause(context)


async def pause(context: Context) -> int:
    await asyncio.get_running_loop().create_future()
    return 0


async def yes(context: Context) -> int:
    line = encoded(" ".join(context.argv[1:]) or "y") + b"\n"
    block = line * max(1, 4096 // len(line))
    while True:
        await context.out(block)
        await asyncio.sleep(0)


async def seq(context: Context) -> int:
    try:
        numbers = [number(each) for each in context.argv[1:]]
        if not 1 <= len(numbers) <= 3:
            raise UsageError("give the last number, or the first and the last, or first, step and last")
        first, step, last = (*((1, 1) if len(numbers) == 1 else (numbers[0], 1)), numbers[-1])
        if len(numbers) == 3:
            step = numbers[1]
        if step == 0:
            raise UsageError("invalid step '0'")
    except UsageError as error:
        await context.error(str(error))
        return 1
    for start in range(first, last + (1 if step > 0 else -1), step * 1000):
        end = min(start + step * 1000, last + 1) if step > 0 else max(start + step * 1000, last - 1)
        await context.out("".join(f"{each}\n" for each in range(start, end, step)))
        await asyncio.sleep(0)
    return 0


async def date(context: Context) -> int:
    words = [each for each in context.argv[1:] if each != "-u"]
    now = context.clock.now()
    moment = datetime.fromtimestamp(now // 1_000_000_000, UTC)
    form = words[0][1:] if words and words[0].startswith("+") else "%a %b %e %H:%M:%S UTC %Y"
    form = form.replace("%N", f"{now % 1_000_000_000:09d}").replace("%s", str(now // 1_000_000_000))
    await context.out(moment.strftime(form) + "\n")
    return 0


async def env(context: Context) -> int:
    await context.out("".join(f"{key}={value}\n" for key, value in context.env.items()))
    return 0


async def printenv(context: Context) -> int:
    if not context.argv[1:]:
        return await env(context)
    known = [each for each in context.argv[1:] if each in context.env]
    await context.out("".join(f"{context.env[each]}\n" for each in known))
    return int(len(known) < len(context.argv) - 1)


async def pwd(context: Context) -> int:
    await context.out(f"{context.cwd}\n")
    return 0


async def hostname(context: Context) -> int:
    await context.out(f"{context.inside.command.hostname}\n")
    return 0


async def uname(context: Context) -> int:
    words = set("".join(context.argv[1:]).replace("-", "") or "s")
    parts = {"s": "Linux", "n": context.inside.command.hostname, "r": "0-fake", "m": "x86_64"}
    await context.out(" ".join(value for key, value in parts.items() if words & {key, "a"}) + "\n")
    return 0


async def basename(context: Context) -> int:
    name = posixpath.basename(context.argv[1].rstrip("/")) if context.argv[1:] else ""
    suffix = context.argv[2] if context.argv[2:] else ""
    await context.out(f"{name if name == suffix else name.removesuffix(suffix)}\n")
    return 0


async def dirname(context: Context) -> int:
    path = context.argv[1] if context.argv[1:] else ""
    await context.out(f"{posixpath.dirname(path.rstrip('/')) or '/' * path.startswith('/') or '.'}\n")
    return 0


async def id(context: Context) -> int:
    try:
        options, _ = parse(context.argv[1:], "unggG")
    except UsageError as error:
        await context.error(str(error))
        return 1
    user = context.inside.command
    groups = list(dict.fromkeys((user.gid, *user.groups)))

    def shown(number: int, file: str) -> str:
        name = _name(context, number, file)
        return f"{number}({name})" if name else str(number)

    if "G" in options:
        text = " ".join(map(str, groups))
    elif "u" in options or "g" in options:
        wanted, file = (user.uid, "/etc/passwd") if "u" in options else (user.gid, "/etc/group")
        text = _name(context, wanted, file) or str(wanted) if "n" in options else str(wanted)
    else:
        listed = ",".join(shown(each, "/etc/group") for each in groups)
        text = f"uid={shown(user.uid, '/etc/passwd')} gid={shown(user.gid, '/etc/group')} groups={listed}"
    await context.out(f"{text}\n")
    return 0


async def whoami(context: Context) -> int:
    uid = context.inside.command.uid
    name = _name(context, uid, "/etc/passwd")
    if not name:
        await context.error(f"unknown uid {uid}")
        return 1
    await context.out(f"{name}\n")
    return 0


def _name(context: Context, number: int, file: str) -> str:
    for line in context.files.text(file).splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(number):
            return fields[0]
    return ""


async def ps(context: Context) -> int:
    user = _name(context, context.inside.command.uid, "/etc/passwd") or str(context.inside.command.uid)
    rows = [f"{each.pid:5d} {user:8.8s}  0:00 {' '.join(each.argv)}\n" for each in context.inside.all()]
    await context.out("  PID USER      TIME COMMAND\n" + "".join(rows))
    return 0


async def kill(context: Context) -> int:
    words, name = context.argv[1:], "TERM"
    if words[:1] == ["-s"]:
        name, words = words[1] if words[1:] else "", words[2:]
    elif words and words[0].startswith("-") and words[0] != "--":
        name, words = words[0][1:], words[1:]
    words = words[1:] if words[:1] == ["--"] else words
    try:
        wanted = 0 if name == "0" else parse_signal(name).number
    except InvalidArgument:
        await context.error(f"bad signal name '{name}'")
        return 1
    if not words:
        await context.error("you need to specify whom to kill")
        return 1
    code = 0
    for word in words:
        if not re.fullmatch(r"-?\d+", word, re.ASCII):
            await context.error(f"invalid number '{word}'")
            code = 1
        elif not _send(context, int(word), wanted):
            await context.error(f"can't kill pid {word}: No such process")
            code = 1
    if context.process.code is not None:
        await asyncio.sleep(0)  # it was this process itself: it goes no further
    return code


def _send(context: Context, pid: int, number: int) -> bool:
    inside = context.inside
    if pid == -1:
        found = [each for each in inside.all() if each is not context.process and each.pid != 1]
    elif pid <= 0:
        group = -pid or context.process.group
        found = [each for each in inside.all() if each.group == group]
    else:
        one = inside.find(pid)
        found = [one] if one is not None else []
    for each in found:
        # The first process of a PID namespace is spared by SIGKILL from inside (pid_namespaces(7)).
        if number and not (each.pid == 1 and number == signal.SIGKILL and inside.has_own_numbers):
            each.signal(number)
    return bool(found)
