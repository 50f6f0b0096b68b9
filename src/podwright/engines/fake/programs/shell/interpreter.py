"""Running scripts: commands, lists, pipelines, redirections, control flow.

Every other program is a process of its own in the container's table; what a shell does itself (its builtins,
and small programs that do not wait) runs within the shell's. A command that is the last thing a process does
takes the process over, as exec(3) does: a shell whose last command only waits costs no task.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podwright.engines.fake.programs import table
from podwright.engines.fake.programs.context import Become, Context, Program
from podwright.engines.fake.programs.shell import builtins
from podwright.engines.fake.programs.shell.arithmetic import ExpressionError
from podwright.engines.fake.programs.shell.expansion import Expansion, ExpansionError, compiled
from podwright.engines.fake.programs.shell.flow import Continue, Ending, ExitShell, Jump, Return
from podwright.engines.fake.programs.shell.syntax import (
    AndOr,
    Case,
    Command,
    Commands,
    For,
    Function,
    Group,
    If,
    Loop,
    Pipeline,
    Redirection,
    ShellSyntaxError,
    Simple,
    Subshell,
)
from podwright.engines.fake.programs.streams import Pipe, Stream, Text

if TYPE_CHECKING:
    from podwright.engines.fake.process import Process

NOT_EXECUTABLE, NOT_FOUND = 126, 127
SYNTAX_ERROR = 2
TURN = 64
"""Rounds of a loop after which others get their turn."""
MOST_CALLS = 60
"""Functions that call each other."""


class State:
    """What a subshell gets a copy of."""

    def __init__(self, environment: dict[str, str], name: str, arguments: list[str]) -> None:
        self.variables = dict(environment)
        self.exported = set(environment)
        self.readonly: set[str] = set()
        self.functions: dict[str, Command] = {}
        self.options: set[str] = set()
        self.name = name
        self.positional = arguments
        self.last_background = 0

    def copy(self) -> State:
        made = State(self.variables, self.name, list(self.positional))
        made.exported, made.readonly = set(self.exported), set(self.readonly)
        made.functions, made.options = dict(self.functions), set(self.options)
        made.last_background = self.last_background
        return made


class Shell:
    def __init__(self, context: Context, state: State, *, pid: int = 0) -> None:
        """`pid`: what $$ is; a subshell has its parent's."""
        self.context = context
        self.state = state
        self.pid = pid or context.process.pid
        self.status = 0
        self.cwd = context.cwd
        self.children: dict[int, Process] = {}
        """In the background, ended or not, until they are waited for."""
        self.traps: dict[int, str] = {}
        """By number of the signal, 0 for the end; "" ignores it."""
        self.expansion = Expansion(self)
        self.calls = 0
        self._pending: list[int] = []
        self._interrupted: asyncio.Future[None] | None = None
        self._unchecked = 0
        """Inside a condition: a failure does not end a shell with -e."""
        self._rounds = 0
        self._in_trap = False
        self._substituted: int | None = None
        """Status of the last substitution in the command at hand."""
        self.loops = 0
        """That the command at hand is in, in this function."""
        self._locals: list[dict[str, str | None]] = []
        """What names stood for before the functions at hand made them their own."""

    @property
    def process(self) -> Process:
        return self.context.process

    @property
    def fds(self) -> dict[int, Stream]:
        return self.context.fds

    # What expansions ask

    @property
    def positional(self) -> list[str]:
        return self.state.positional

    def variable(self, name: str) -> str | None:
        return self.state.variables.get(name)

    def get(self, name: str) -> str:
        return self.state.variables.get(name, "")

    def set(self, name: str, value: str) -> None:
        if name in self.state.readonly:
            raise ExpansionError(f"{name}: is read only")
        self.state.variables[name] = value
        if "a" in self.state.options:
            self.state.exported.add(name)

    def option(self, letter: str) -> bool:
        return letter in self.state.options

    def special(self, name: str) -> str | None:
        """The value of a parameter of any kind; None when it is not set."""
        positional = self.state.positional
        if name.isdecimal():
            number = int(name)
            if number == 0:
                return self.state.name
            return positional[number - 1] if number <= len(positional) else None
        match name:
            case "?":
                return str(self.status)
            case "$":
                return str(self.pid)
            case "!":
                return str(self.state.last_background or "")
            case "#":
                return str(len(positional))
            case "-":
                return "".join(sorted(self.state.options))
            case "@" | "*":
                return " ".join(positional) if positional else None
        return self.state.variables.get(name)

    async def output_of(self, commands: Commands) -> str:
        """What `commands` write, run in a subshell."""
        pipe = Pipe()
        process = self.fork(commands, {**self.fds, 1: pipe.writer})
        pipe.writer.close()
        try:
            content = await self.context.read_all(pipe.reader)
        finally:
            pipe.reader.close()
        self._substituted = await process.wait()
        return content.replace(b"\0", b"").decode(errors="surrogateescape")

    @property
    def environment(self) -> dict[str, str]:
        variables = self.state.variables
        return {name: variables[name] for name in variables if name in self.state.exported}

    # Lists

    async def run(self, commands: Commands, *, last: bool = False) -> int:
        """`last`: the shell has nothing to do after them."""
        for number, item in enumerate(commands.items):
            await self.caught()
            await self._and_or(item, last and number == len(commands.items) - 1)
        return self.status

    async def _and_or(self, item: AndOr, last: bool) -> None:
        if item.background:
            self._background(item)
            return
        pipelines = [("", item.first), *item.rest]
        for number, (operator, pipeline) in enumerate(pipelines):
            if operator and (self.status == 0) != (operator == "&&"):
                continue
            is_last = number == len(pipelines) - 1
            if is_last:
                await self._pipeline(pipeline, last)
            else:
                with self.condition():
                    await self._pipeline(pipeline, False)
            failed = self.status != 0 and is_last and not pipeline.negated
            if failed and "e" in self.state.options and not self._unchecked:
                raise ExitShell(self.status)
        await self.caught()

    def _background(self, item: AndOr) -> None:
        foreground = AndOr(item.first, item.rest)
        # POSIX: what runs in the background does not read what the shell reads.
        process = self.fork(Commands((foreground,)), {**self.fds, 0: Stream()})
        self.children[process.pid] = process
        self.state.last_background = process.pid
        self.status = 0

    @contextmanager
    def condition(self) -> Iterator[None]:
        self._unchecked += 1
        try:
            yield
        finally:
            self._unchecked -= 1

    async def _pipeline(self, pipeline: Pipeline, last: bool) -> None:
        if len(pipeline.commands) == 1:
            if pipeline.negated:
                with self.condition():
                    await self.command(pipeline.commands[0])
            else:
                await self.command(pipeline.commands[0], last=last)
        else:
            self.status = await self._piped(pipeline.commands)
        if pipeline.negated:
            self.status = int(not self.status)

    async def _piped(self, commands: Sequence[Command]) -> int:
        processes, reader = [], None
        for number, command in enumerate(commands):
            fds = dict(self.fds)
            if reader is not None:
                fds[0] = reader
            pipe = Pipe() if number < len(commands) - 1 else None
            if pipe is not None:
                fds[1] = pipe.writer
            body = Commands((AndOr(Pipeline((command,))),))
            processes.append(self.fork(body, fds))
            if reader is not None:
                reader.close()
            if pipe is not None:
                pipe.writer.close()
                reader = pipe.reader
        statuses = [await each.wait() for each in processes]
        if "pipefail" in self.state.options:
            return next((each for each in reversed(statuses) if each), 0)
        return statuses[-1]

    def fork(self, commands: Commands, fds: dict[int, Stream]) -> Process:
        """A subshell that runs `commands`; it gets a share of each of `fds`."""
        state = self.state.copy()
        ignored = {number for number, text in self.traps.items() if number and not text}
        unchecked, status, pid, cwd = self._unchecked, self.status, self.pid, self.cwd

        async def forked(context: Context) -> int:
            shell = Shell(context, state, pid=pid)
            shell.traps = dict.fromkeys(ignored, "")
            shell._unchecked, shell.status, shell.cwd = unchecked, status, cwd
            return await shell.main(shell.run(commands, last=True))

        shared = {number: stream.share() for number, stream in fds.items()}
        return self.context.inside.spawn(
            forked, self.process.argv, shared, env=self.environment, cwd=self.cwd, parent=self.process
        )

    async def main(self, work: Awaitable[int]) -> int:
        """Do `work` as everything that this process does, the trap of its end included."""
        code = await self._bounded(work)
        script = self.traps.pop(0, "")
        if script:
            self.status = code
            code = await self._bounded(self._finally(script, code))
        return code

    async def _finally(self, script: str, code: int) -> int:
        await builtins.evaluate(self, script)
        return code

    async def _bounded(self, work: Awaitable[int]) -> int:
        """The status of `work`, however it ends."""
        try:
            return await work
        except Ending as end:
            return end.status
        except ShellSyntaxError as error:
            await self.complain(f"syntax error: {error}")
        except (ExpansionError, ExpressionError) as error:
            await self.complain(str(error))
        return SYNTAX_ERROR

    # Commands

    async def command(self, command: Command, *, last: bool = False) -> None:
        if isinstance(command, Simple):
            await self._simple(command, last)
            return
        if isinstance(command, Function):
            self.state.functions[command.name] = command.body
            self.status = 0
            return
        if isinstance(command, Subshell):
            async with _Redirected(self, command.redirections) as ready:
                if ready:
                    self.status = await self.fork(command.body, self.fds).wait()
            return
        async with _Redirected(self, command.redirections) as ready:
            if ready:
                await self._compound(command)

    async def _compound(self, command: Group | If | Loop | For | Case) -> None:
        match command:
            case Group():
                await self.run(command.body)
            case If():
                await self._if(command)
            case Loop():
                await self._loop(command)
            case For():
                await self._for(command)
            case Case():
                await self._case(command)

    async def _if(self, command: If) -> None:
        for condition, body in command.branches:
            with self.condition():
                await self.run(condition)
            if self.status == 0:
                await self.run(body)
                return
        self.status = 0
        if command.otherwise is not None:
            await self.run(command.otherwise)

    async def _loop(self, command: Loop) -> None:
        status = 0

        async def round() -> bool:
            nonlocal status
            with self.condition():
                await self.run(command.condition)
            if (self.status == 0) == command.until:
                return False
            await self.run(command.body)
            status = self.status
            return True

        while await self._round(round):
            pass
        self.status = status

    async def _for(self, command: For) -> None:
        if command.words is None:
            values = list(self.state.positional)
        else:
            values = await self.expansion.fields(command.words)
        self.status = 0
        for value in values:
            self.set(command.name, value)

            async def round() -> bool:
                await self.run(command.body)
                return True

            if not await self._round(round):
                break

    async def _round(self, work: Callable[[], Awaitable[bool]]) -> bool:
        """One round of a loop; whether there may be another one."""
        self._rounds += 1
        if self._rounds % TURN == 0:
            await asyncio.sleep(0)
        self.loops += 1
        try:
            return await work()
        except Jump as jump:
            self.status = 0
            if jump.levels > 1:
                raise type(jump)(jump.levels - 1) from None
            return isinstance(jump, Continue)
        finally:
            self.loops -= 1

    async def _case(self, command: Case) -> None:
        text = await self.expansion.text(command.word)
        self.status = 0
        for patterns, body in command.items:
            for pattern in patterns:
                if compiled(await self.expansion.pattern(pattern)).match(text):
                    await self.run(body)
                    return

    # Simple commands

    async def _simple(self, command: Simple, last: bool) -> None:
        self._substituted = None
        argv = await self.expansion.fields(command.words)
        if not argv:
            for name, word in command.assignments:
                self.set(name, await self.expansion.text(word))
            async with _Redirected(self, command.redirections) as ready:
                if ready:
                    self.status = self._substituted or 0
            return
        assigned = {name: await self.expansion.text(word) for name, word in command.assignments}
        if "x" in self.state.options:
            await self.context.complain("+ " + " ".join([*(f"{k}={v}" for k, v in assigned.items()), *argv]))
        if argv[0] == "exec":
            await self._exec(argv[1:], assigned, command.redirections)
            return
        special = builtins.SPECIAL.get(argv[0])
        function = self.state.functions.get(argv[0])
        own = builtins.find(argv[0])
        if special is None and function is None and own is None:
            await self._external(argv, assigned, command.redirections, last)
            return
        async with _Redirected(self, command.redirections) as ready:
            if not ready:
                return
            if special is not None:
                for name, value in assigned.items():
                    self.set(name, value)
                self.status = await special(self, argv)
                return
            with self._assigned(assigned):
                if function is not None:
                    await self._call(function, argv[1:])
                else:
                    assert own is not None
                    self.status = await own(self, argv)

    @contextmanager
    def _assigned(self, assigned: dict[str, str]) -> Iterator[None]:
        """Variables that hold for one command."""
        variables, exported = self.state.variables, self.state.exported
        before = {name: (variables.get(name), name in exported) for name in assigned}
        for name, value in assigned.items():
            self.set(name, value)
            exported.add(name)
        try:
            yield
        finally:
            for name, (old, was_exported) in before.items():
                if old is None:
                    variables.pop(name, None)
                else:
                    variables[name] = old
                if not was_exported:
                    exported.discard(name)

    async def _call(self, body: Command, arguments: list[str]) -> None:
        if self.calls >= MOST_CALLS:
            raise ExpansionError("too many functions call each other")
        before, self.state.positional = self.state.positional, arguments
        loops, self.loops = self.loops, 0
        self.calls += 1
        self._locals.append({})
        try:
            await self.command(body)
        except Return as end:
            self.status = end.status
        finally:
            for name, value in self._locals.pop().items():
                if value is None:
                    self.state.variables.pop(name, None)
                else:
                    self.state.variables[name] = value
            self.calls -= 1
            self.loops = loops
            self.state.positional = before

    def keep_local(self, name: str) -> None:
        """The variable gets its value back when the function at hand ends."""
        if self._locals:
            self._locals[-1].setdefault(name, self.state.variables.get(name))

    async def run_words(self, argv: list[str]) -> int:
        """A command by its words alone, functions left aside."""
        own = builtins.SPECIAL.get(argv[0]) or builtins.find(argv[0])
        if own is not None:
            return await own(self, argv)
        await self._external(argv, {}, (), last=False)
        return self.status

    async def _external(
        self,
        argv: list[str],
        assigned: dict[str, str],
        redirections: tuple[Redirection, ...],
        last: bool,
    ) -> None:
        if last and not self.traps and not self._unchecked:
            await self._exec(argv, assigned, redirections, told=False)
            return
        async with _Redirected(self, redirections) as ready:
            if not ready:
                return
            found = self._found(argv)
            if found is None:
                self.status = await self._not_found(argv[0])
                return
            program, words = found
            fds = {number: stream.share() for number, stream in self.fds.items()}
            environment = {**self.environment, **assigned}
            process = self.context.inside.spawn(
                program, words, fds, env=environment, cwd=self.cwd, parent=self.process
            )
            self.status = await process.wait()

    async def _exec(
        self,
        argv: list[str],
        assigned: dict[str, str],
        redirections: tuple[Redirection, ...],
        *,
        told: bool = True,
    ) -> None:
        """`argv` instead of this shell. Without one the redirections stay. `told`: by the script itself."""
        redirected = _Redirected(self, redirections)
        if not await redirected.apply():
            if told:
                raise ExitShell(self.status)
            return
        redirected.keep()
        if not argv:
            self.status = 0
            return
        found = self._found(argv)
        if found is None and told and self.process.pid == 1 and self.context.inside.unknown_programs_run:
            self.process.argv = argv
            self.process.handlers = None
            raise Become(float("inf"))
        if found is None:
            raise ExitShell(await self._not_found(argv[0]))
        program, words = found
        self.process.argv, self.process.handlers = words, None
        seconds = table.idle_seconds(words)
        if seconds is not None and table.find(words[0]) is program:
            raise Become(seconds)
        environment = {**self.environment, **assigned}
        raise ExitShell(await program(Context(self.process, words, environment, self.cwd, self.fds)))

    def _found(self, argv: list[str]) -> tuple[Program, list[str]] | None:
        return self.context.inside.resolve(argv, self.cwd)

    async def _not_found(self, name: str) -> int:
        kind = self.context_here().kind(name) if "/" in name else None
        if kind is not None:
            await self.complain(f"{name}: Permission denied")
            return NOT_EXECUTABLE
        await self.complain(f"{name}: not found")
        return NOT_FOUND

    def context_here(self, argv: list[str] | None = None) -> Context:
        """For a program that runs within this shell."""
        return Context(self.process, argv or self.context.argv, self.environment, self.cwd, self.fds)

    async def complain(self, text: str) -> None:
        await self.context.complain(f"{self.context.name}: {text}")

    # Signals

    def trap(self, number: int, script: str | None) -> None:
        """None: as it was at the beginning. Number 0 is the end of the shell."""
        process = self.process
        handlers = process.handlers = process.handlers if process.handlers is not None else {}
        handlers.pop(number, None)
        process.ignored = process.ignored - {number}
        self.traps.pop(number, None)
        if script is None:
            return
        self.traps[number] = script
        if number and script:
            handlers[number] = self._catch
        elif number:
            process.ignored = process.ignored | {number}

    def _catch(self, number: int) -> None:
        if number not in self._pending:
            self._pending.append(number)
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(None)

    async def caught(self) -> None:
        """Run the traps of signals that came."""
        while self._pending and not self._in_trap:
            script = self.traps.get(self._pending.pop(0))
            if not script:
                continue
            status, self._in_trap = self.status, True
            try:
                await builtins.evaluate(self, script)
            finally:
                self._in_trap = False
            self.status = status

    async def wait_for(self, processes: Sequence[Process]) -> int:
        """The status of the last one when all have ended, 128 and more when a trapped signal comes before."""
        while True:
            if self._pending:
                return 128 + self._pending[0]
            living = [each for each in processes if each.code is None]
            if not living:
                return processes[-1].code or 0 if processes else 0
            self._interrupted = asyncio.get_running_loop().create_future()
            await asyncio.wait(
                [self._interrupted, *(each.ending() for each in living)], return_when=asyncio.FIRST_COMPLETED
            )


class _Redirected:
    """The descriptors of a shell, changed for one command."""

    def __init__(self, shell: Shell, redirections: tuple[Redirection, ...]) -> None:
        self._shell = shell
        self._redirections = redirections
        self._before: list[tuple[int, Stream | None]] = []

    async def __aenter__(self) -> bool:
        return not self._redirections or await self.apply()

    async def __aexit__(self, *_: object) -> None:
        fds = self._shell.fds
        for fd, stream in reversed(self._before):
            if self._shell.process.code is not None:
                # It was killed, and its descriptors are closed, but not those that were put aside.
                if stream is not None:
                    stream.close()
                continue
            if fd in fds:
                fds.pop(fd).close()
            if stream is not None:
                fds[fd] = stream
        self._before.clear()

    async def apply(self) -> bool:
        """False when one cannot be opened: the complaint is written, the status is 1."""
        shell = self._shell
        for each in self._redirections:
            target = ""
            try:
                target = "" if each.document is not None else await shell.expansion.text(each.target)
                stream = await self._opened(each, target)
            except OSError as error:
                verb = "create" if each.operator in (">", ">>", ">|") else "open"
                problem = error.strerror or str(error)
                if error.errno == errno.EBADF:
                    await shell.complain(f"{target}: {problem}")
                else:
                    await shell.complain(f"can't {verb} {target}: {problem}")
                await self.__aexit__()
                shell.status = 1
                return False
            self._before.append((each.fd, shell.fds.pop(each.fd, None)))
            if stream is not None:
                shell.fds[each.fd] = stream
        return True

    def keep(self) -> None:
        for _, stream in self._before:
            if stream is not None:
                stream.close()
        self._before.clear()

    async def _opened(self, each: Redirection, target: str) -> Stream | None:
        if each.document is not None:
            text = await self._shell.expansion.text(tuple(each.document.body))
            return Text(text.encode(errors="surrogateescape"))
        if each.operator in ("<&", ">&"):
            if target == "-":
                return None
            source = self._shell.fds.get(int(target)) if target.isdecimal() else None
            if source is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return source.share()
        mode = {"<": "r", ">": "w", ">|": "w", ">>": "a", "<>": "r+"}[each.operator]
        return self._shell.context_here().open(target, mode)
