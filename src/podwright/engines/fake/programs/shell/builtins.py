"""What a shell does itself: the builtins that change it, and small programs that it need not start."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from podwright.engines.fake.programs import table
from podwright.engines.fake.programs.shell.flow import Break, Continue, ExitShell, Jump, Return
from podwright.engines.fake.programs.shell.lexer import NAME
from podwright.engines.fake.programs.shell.reading import read
from podwright.engines.fake.programs.shell.syntax import ShellSyntaxError
from podwright.errors import InvalidArgument
from podwright.spec.signals import parse_signal

if TYPE_CHECKING:
    from podwright.engines.fake.programs.shell.interpreter import Shell

Builtin: TypeAlias = "Callable[[Shell, list[str]], Awaitable[int]]"

USAGE = 2
_OWN_PROGRAMS = ("[", "basename", "dirname", "echo", "false", "kill", "printf", "pwd", "test", "true")
"""Programs that run within the shell: they end without waiting."""
_LONG_OPTIONS = {
    "errexit": "e",
    "nounset": "u",
    "xtrace": "x",
    "noglob": "f",
    "allexport": "a",
    "pipefail": "pipefail",
}


def find(name: str) -> Builtin | None:
    """A builtin that changes nothing of the shell but its status."""
    if name in _ORDINARY:
        return _ORDINARY[name]
    if name not in _OWN_PROGRAMS:
        return None
    program = table.find(name)
    assert program is not None

    async def run(shell: Shell, argv: list[str]) -> int:
        context = shell.context_here(argv)
        try:
            return await program(context)
        except OSError as error:
            await context.error(error.strerror or str(error))
            return 1

    return run


async def _colon(shell: Shell, argv: list[str]) -> int:
    return 0


async def _exit(shell: Shell, argv: list[str]) -> int:
    raise ExitShell(await _status(shell, argv, shell.state.status))


async def _return(shell: Shell, argv: list[str]) -> int:
    raise Return(await _status(shell, argv, shell.state.status))


async def _status(shell: Shell, argv: list[str], otherwise: int) -> int:
    if not argv[1:]:
        return otherwise
    if not re.fullmatch(r"\d+", argv[1], re.ASCII):
        await shell.complain(f"{argv[0]}: Illegal number: {argv[1]}")
        raise ExitShell(USAGE)
    return int(argv[1]) & 0xFF


async def _break(shell: Shell, argv: list[str]) -> int:
    return await _jump(shell, argv, Break)


async def _continue(shell: Shell, argv: list[str]) -> int:
    return await _jump(shell, argv, Continue)


async def _jump(shell: Shell, argv: list[str], kind: type[Jump]) -> int:
    if argv[1:] and not (argv[1].isdecimal() and int(argv[1])):
        await shell.complain(f"{argv[0]}: Illegal number: {argv[1]}")
        raise ExitShell(USAGE)
    if shell.loops:
        raise kind(min(int(argv[1]) if argv[1:] else 1, shell.loops))
    return 0


async def _eval(shell: Shell, argv: list[str]) -> int:
    try:
        shell.state.status = 0
        return await shell.evaluate(" ".join(argv[1:]))
    except ShellSyntaxError as error:
        await shell.complain(f"eval: syntax error: {error}")
        raise ExitShell(USAGE) from None


async def _dot(shell: Shell, argv: list[str]) -> int:
    if not argv[1:]:
        await shell.complain(f"{argv[0]}: filename argument required")
        raise ExitShell(USAGE)
    context = shell.context_here()
    try:
        stream = context.open(argv[1])
    except OSError as error:
        await shell.complain(f"{argv[0]}: can't open '{argv[1]}': {error.strerror}")
        raise ExitShell(USAGE) from None
    text = (await context.read_all(stream)).decode(errors="surrogateescape")
    stream.close()
    try:
        shell.state.status = 0
        return await shell.evaluate(text)
    except Return as end:
        return end.status
    except ShellSyntaxError as error:
        await shell.complain(f"{argv[1]}: syntax error: {error}")
        raise ExitShell(USAGE) from None


async def _export(shell: Shell, argv: list[str]) -> int:
    return await _mark(shell, argv, shell.state.exported)


async def _readonly(shell: Shell, argv: list[str]) -> int:
    return await _mark(shell, argv, shell.state.readonly)


async def _mark(shell: Shell, argv: list[str], marked: set[str]) -> int:
    words = [each for each in argv[1:] if each != "-p"]
    if not words:
        variables = shell.state.variables
        rows = [f"{argv[0]} {each}='{variables[each]}'\n" for each in sorted(marked) if each in variables]
        await shell.context_here().out("".join(rows))
    for word in words:
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            await shell.complain(f"{argv[0]}: {word}: bad variable name")
            raise ExitShell(USAGE)
        if equals:
            shell.state.set(name, value)
        marked.add(name)
    return 0


async def _unset(shell: Shell, argv: list[str]) -> int:
    for name in argv[1:]:
        if name in ("-v", "-f"):
            continue
        if name in shell.state.readonly:
            await shell.complain(f"unset: {name}: is read only")
            return USAGE
        if argv[1] == "-f":
            shell.state.functions.pop(name, None)
        else:
            shell.state.variables.pop(name, None)
            shell.state.exported.discard(name)
    return 0


async def _set(shell: Shell, argv: list[str]) -> int:
    words = argv[1:]
    if not words:
        rows = [f"{name}='{value}'\n" for name, value in sorted(shell.state.variables.items())]
        await shell.context_here().out("".join(rows))
    options = shell.state.options
    while words and words[0][:1] in ("-", "+") and len(words[0]) > 1:
        word = words.pop(0)
        if word == "--":
            shell.state.positional = words
            return 0
        change = options.add if word[0] == "-" else options.discard
        for letter in word[1:]:
            if letter == "o":
                name = _LONG_OPTIONS.get(words.pop(0) if words else "", "")
                if not name:
                    await shell.complain("set: illegal option -o")
                    raise ExitShell(USAGE)
                change(name)
            else:
                change(letter)
    if words:
        shell.state.positional = words
    return 0


async def _shift(shell: Shell, argv: list[str]) -> int:
    count = await _status(shell, argv, 1)
    if count > len(shell.state.positional):
        return 1
    shell.state.positional = shell.state.positional[count:]
    return 0


async def _trap(shell: Shell, argv: list[str]) -> int:
    words = argv[1:]
    if words[:1] == ["--"]:
        del words[0]
    if not words:
        rows = [
            f"trap -- '{script}' {_signal_name(number)}\n" for number, script in shell.traps.scripts.items()
        ]
        await shell.context_here().out("".join(rows))
        return 0
    script: str | None = words.pop(0)
    if not words:
        # One word alone is a signal whose trap is taken away.
        words, script = [script or ""], None
    if script == "-":
        script = None
    code = 0
    for word in words:
        try:
            number = 0 if word in ("0", "EXIT") else parse_signal(word).number
        except InvalidArgument:
            await shell.complain(f"trap: {word}: invalid signal specification")
            code = 1
            continue
        shell.traps.set(number, script)
    return code


def _signal_name(number: int) -> str:
    return parse_signal(str(number)).name.removeprefix("SIG") if number else "EXIT"


async def _cd(shell: Shell, argv: list[str]) -> int:
    words = [each for each in argv[1:] if each not in ("-L", "-P", "--")]
    target = words[0] if words else shell.state.get("HOME") or "/"
    shown = target == "-"
    if shown:
        target = shell.state.get("OLDPWD") or shell.state.cwd
    context = shell.context_here()
    kind = context.kind(target)
    if kind is None or kind.letter != "d":
        await shell.complain(
            f"cd: can't cd to {target}: {'Not a directory' if kind else 'No such file or directory'}"
        )
        return USAGE
    before, shell.state.cwd = shell.state.cwd, context.path(target)
    shell.state.variables["OLDPWD"], shell.state.variables["PWD"] = before, shell.state.cwd
    if shown:
        await shell.context_here().out(f"{shell.state.cwd}\n")
    return 0


async def _wait(shell: Shell, argv: list[str]) -> int:
    if not argv[1:]:
        status = await shell.traps.wait_for(list(shell.children.values()))
        for pid in [pid for pid, each in shell.children.items() if each.code is not None]:
            del shell.children[pid]
        return status if status > 128 and shell.children else 0
    status = 0
    for word in argv[1:]:
        child = shell.children.get(int(word)) if word.isdecimal() else None
        if child is None:
            status = 127
            continue
        status = await shell.traps.wait_for([child])
        if child.code is None:
            return status
    return status


async def _command(shell: Shell, argv: list[str]) -> int:
    words = argv[1:]
    if words[:1] == ["-v"] or words[:1] == ["-V"]:
        return await _describe(shell, words[1:], verbose=words[0] == "-V")
    words = words[1:] if words[:1] in (["-p"], ["--"]) else words
    if not words:
        return 0
    from podwright.engines.fake.programs.shell import simple

    return await simple.run_words(shell, words)


async def _type(shell: Shell, argv: list[str]) -> int:
    return await _describe(shell, argv[1:], verbose=True)


async def _describe(shell: Shell, names: list[str], *, verbose: bool) -> int:
    code = 0
    for name in names:
        if name in shell.state.functions:
            text = f"{name} is a function" if verbose else name
        elif name in SPECIAL or name == "exec" or find(name) is not None:
            text = f"{name} is a shell builtin" if verbose else name
        elif shell.context.inside.resolve([name], shell.state.cwd) is not None:
            path = name if "/" in name else f"/bin/{name}"
            text = f"{name} is {path}" if verbose else path
        else:
            code = 127
            if verbose:
                await shell.complain(f"{name}: not found")
            continue
        await shell.context_here().out(f"{text}\n")
    return code


async def _local(shell: Shell, argv: list[str]) -> int:
    for word in argv[1:]:
        name, equals, value = word.partition("=")
        shell.state.keep_local(name)
        if equals:
            shell.state.set(name, value)
    return 0


async def _umask(shell: Shell, argv: list[str]) -> int:
    if not argv[1:]:
        await shell.context_here().out("0022\n")
    return 0


SPECIAL: dict[str, Builtin] = {
    ".": _dot,
    ":": _colon,
    "break": _break,
    "continue": _continue,
    "eval": _eval,
    "exit": _exit,
    "export": _export,
    "readonly": _readonly,
    "return": _return,
    "set": _set,
    "shift": _shift,
    "source": _dot,
    "trap": _trap,
    "unset": _unset,
}
"""Found before functions; what is assigned in front of them stays."""
_ORDINARY: dict[str, Builtin] = {
    "cd": _cd,
    "command": _command,
    "local": _local,
    "read": read,
    "type": _type,
    "umask": _umask,
    "wait": _wait,
}
