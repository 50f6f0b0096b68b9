"""Simple commands: assignments, builtins, functions, and programs.

Every other program is a process of its own in the container's table; what a shell does itself runs within it.
A command that is the last thing a process does takes the process over, as exec(3) does: a shell whose last
command only waits costs no task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwright.engines.fake.programs import table
from podwright.engines.fake.programs.context import Become, Context
from podwright.engines.fake.programs.shell import builtins
from podwright.engines.fake.programs.shell.flow import ExitShell, ExpansionError, Return
from podwright.engines.fake.programs.shell.redirections import Redirected
from podwright.engines.fake.programs.shell.syntax import Command, Redirection, Simple

if TYPE_CHECKING:
    from podwright.engines.fake.programs.shell.interpreter import Shell

NOT_EXECUTABLE, NOT_FOUND = 126, 127
MOST_CALLS = 40
"""Functions that call each other."""


async def run(shell: Shell, command: Simple, *, last: bool) -> None:
    """`last`: the shell has nothing to do after it."""
    state = shell.state
    shell.substituted = None
    argv = await shell.expansion.fields(command.words)
    if not argv:
        for name, word in command.assignments:
            state.set(name, await shell.expansion.text(word))
        async with Redirected(shell, command.redirections) as ready:
            if ready:
                state.status = shell.substituted or 0
        return
    assigned = {name: await shell.expansion.text(word) for name, word in command.assignments}
    if "x" in state.options:
        words = [*(f"{name}={value}" for name, value in assigned.items()), *argv]
        await shell.context.complain(f"+ {' '.join(words)}")
    if argv[0] == "exec":
        await _exec(shell, argv[1:], assigned, command.redirections, told=True)
        return
    special = builtins.SPECIAL.get(argv[0])
    function = state.functions.get(argv[0])
    own = builtins.find(argv[0])
    if special is None and function is None and own is None:
        if last and not shell.traps.scripts and not shell.unchecked:
            await _exec(shell, argv, assigned, command.redirections, told=False)
        else:
            await _start(shell, argv, assigned, command.redirections)
        return
    async with Redirected(shell, command.redirections) as ready:
        if not ready:
            return
        if special is not None:
            for name, value in assigned.items():
                state.set(name, value)
            state.status = await special(shell, argv)
            return
        with state.assigned(assigned):
            if function is not None:
                await _call(shell, function, argv[1:])
            else:
                assert own is not None
                state.status = await own(shell, argv)


async def run_words(shell: Shell, argv: list[str]) -> int:
    """A command by its words alone, functions left aside."""
    own = builtins.SPECIAL.get(argv[0]) or builtins.find(argv[0])
    if own is not None:
        return await own(shell, argv)
    await _start(shell, argv, {}, ())
    return shell.state.status


async def _call(shell: Shell, body: Command, arguments: list[str]) -> None:
    if shell.state.calls >= MOST_CALLS:
        raise ExpansionError("too many functions call each other")
    loops, shell.loops = shell.loops, 0
    try:
        with shell.state.called(arguments):
            await shell.command(body)
    except Return as end:
        shell.state.status = end.status
    finally:
        shell.loops = loops


async def _start(
    shell: Shell, argv: list[str], assigned: dict[str, str], redirections: tuple[Redirection, ...]
) -> None:
    """A program as a process of its own, waited for."""
    state, inside = shell.state, shell.context.inside
    async with Redirected(shell, redirections) as ready:
        if not ready:
            return
        found = inside.resolve(argv, state.cwd)
        if found is None:
            state.status = await _not_found(shell, argv[0])
            return
        program, words = found
        fds = {number: stream.share() for number, stream in shell.fds.items()}
        environment = {**state.environment, **assigned}
        process = inside.spawn(
            program, words, fds, env=environment, cwd=state.cwd, parent=shell.context.process
        )
        state.status = await process.wait()


async def _exec(
    shell: Shell,
    argv: list[str],
    assigned: dict[str, str],
    redirections: tuple[Redirection, ...],
    *,
    told: bool,
) -> None:
    """`argv` instead of this shell. Without one the redirections stay. `told`: by the script itself."""
    state, process, inside = shell.state, shell.context.process, shell.context.inside
    redirected = Redirected(shell, redirections)
    if not await redirected.apply():
        if told:
            raise ExitShell(state.status)
        return
    redirected.keep()
    if not argv:
        state.status = 0
        return
    found = inside.resolve(argv, state.cwd)
    if found is None and not (process.pid == 1 and inside.unknown_programs_run):
        raise ExitShell(await _not_found(shell, argv[0]))
    process.handlers = None
    if found is None:
        process.argv = argv
        raise Become(float("inf"))
    program, process.argv = found
    seconds = table.idle_seconds(process.argv)
    if seconds is not None and table.find(process.argv[0]) is program:
        raise Become(seconds)
    environment = {**state.environment, **assigned}
    raise ExitShell(await program(Context(process, process.argv, environment, state.cwd, shell.fds)))


async def _not_found(shell: Shell, name: str) -> int:
    if "/" in name and shell.context_here().kind(name) is not None:
        await shell.complain(f"{name}: Permission denied")
        return NOT_EXECUTABLE
    await shell.complain(f"{name}: not found")
    return NOT_FOUND
