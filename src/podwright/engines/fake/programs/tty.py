"""Built-in programs about the terminal: its name, its size and its modes."""

from __future__ import annotations

from dataclasses import fields, replace

from podwright.engines.fake.programs.context import Context
from podwright.engines.fake.programs.terminal import NAME, Modes, Terminal, TerminalStream

_MODES = tuple(each.name for each in fields(Modes))
_RAW = dict.fromkeys(("icanon", "isig", "icrnl", "opost"), False)
_COOKED = dict.fromkeys(_RAW, True)
_SETS = {
    "raw": _RAW,
    "-cooked": _RAW,
    "cooked": _COOKED,
    "-raw": _COOKED,
    "sane": dict.fromkeys(_MODES, True),
    "cbreak": {"icanon": False},
    "-cbreak": {"icanon": True},
}


async def tty(context: Context) -> int:
    """Its name; 1 without one."""
    found = context.stdin.terminal
    if context.argv[1:] != ["-s"]:
        await context.out(f"{NAME if found else 'not a tty'}\n")
    return int(not found)


async def stty(context: Context) -> int:
    """`stty size`, `stty -a`, or modes to be set: `stty raw -echo`, `stty cols 100 rows 30`."""
    stream = context.stdin
    if not isinstance(stream, TerminalStream):
        await context.error("standard input: Inappropriate ioctl for device")
        return 1
    terminal, words = stream.tty, context.argv[1:]
    if words == ["size"]:
        await context.out(f"{terminal.rows} {terminal.columns}\n")
        return 0
    if words in ([], ["-a"]):
        await context.out(_shown(terminal))
        return 0
    modes = terminal.modes
    while words:
        word = words.pop(0)
        if word in _SETS:
            modes = replace(modes, **_SETS[word])
        elif word.removeprefix("-") in _MODES:
            modes = replace(modes, **{word.removeprefix("-"): not word.startswith("-")})
        elif word in ("cols", "columns", "rows") and words and words[0].isdecimal():
            number = int(words.pop(0))
            if word == "rows":
                terminal.resize(terminal.columns, number)
            else:
                terminal.resize(number, terminal.rows)
        else:
            await context.error(f"invalid argument '{word}'")
            return 1
    terminal.change(modes)
    return 0


def _shown(terminal: Terminal) -> str:
    states = [f"{'' if getattr(terminal.modes, each) else '-'}{each}" for each in _MODES]
    return f"speed 38400 baud; rows {terminal.rows}; columns {terminal.columns};\n{' '.join(states)}\n"
