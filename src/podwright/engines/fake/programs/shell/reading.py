"""read: a line of standard input, taken apart into variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from podwright.engines.fake.programs.context import CHUNK
from podwright.engines.fake.programs.shell.expansion import split

if TYPE_CHECKING:
    from podwright.engines.fake.programs.shell.interpreter import Shell


async def read(shell: Shell, argv: list[str]) -> int:
    """The builtin: a line of standard input into variables; 1 at the end, 128 and more after a signal."""
    words, raw, prompt = argv[1:], False, ""
    while words and words[0].startswith("-") and len(words[0]) > 1:
        option = words.pop(0)
        raw = raw or "r" in option
        if option.endswith("p") and words:
            prompt = words.pop(0)
    if prompt:
        await shell.context.fds[2].write(prompt.encode())
    names = words or ["REPLY"]
    stream = shell.fds.get(0)
    pieces, ended = list[str](), True
    while stream is not None:
        found = await shell.traps.unless_caught(stream.read(CHUNK, line=True))
        if found is None:
            return 128 + shell.traps.pending
        line = found.decode(errors="surrogateescape")
        ended = not line.endswith("\n")
        pieces.append(line.removesuffix("\n"))
        if raw or ended or not _continues(pieces[-1]):
            break
        pieces[-1] = pieces[-1][:-1]
    text = "".join(pieces)
    values = _assigned(text, names, shell.state.variable("IFS"), raw)
    for name, value in zip(names, values, strict=True):
        shell.state.set(name, value)
    return int(ended)


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _assigned(text: str, names: list[str], separators: str | None, raw: bool) -> list[str]:
    """One value a name; the last one gets all the rest."""
    signs = " \t\n" if separators is None else separators
    blanks = "".join(sign for sign in signs if sign in " \t\n")
    protected = dict[str, str]()
    if not raw:

        def protect(match: re.Match[str]) -> str:
            mark = chr(0xE000 + len(protected))
            protected[mark] = match[1]
            return mark

        text = re.sub(r"\\(.)", protect, text, flags=re.DOTALL)
    values = []
    rest = text.strip(blanks) if blanks else text
    for _ in names[:-1]:
        pieces, _open = split(rest, separators)
        values.append(pieces[0][0] if pieces else "")
        if len(pieces) < 2:
            rest = ""
            continue
        match = re.match(
            rf"{re.escape(pieces[0][0])}(?:[{re.escape(blanks)}]*[{re.escape(signs)}][{re.escape(blanks)}]*)"
            if blanks
            else rf"{re.escape(pieces[0][0])}[{re.escape(signs)}]",
            rest,
        )
        rest = rest[match.end() :] if match else ""
    values.append(rest)
    for mark, sign in protected.items():
        values = [value.replace(mark, sign) for value in values]
    return values
