"""Running scripts: lists, pipelines, compound commands; subshells and traps."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podwright.engines.fake.programs.context import Context
from podwright.engines.fake.programs.shell import simple
from podwright.engines.fake.programs.shell.arithmetic import ExpressionError
from podwright.engines.fake.programs.shell.expansion import Expansion, compiled
from podwright.engines.fake.programs.shell.flow import Continue, Ending, ExitShell, ExpansionError, Jump
from podwright.engines.fake.programs.shell.parser import Parser
from podwright.engines.fake.programs.shell.redirections import Redirected
from podwright.engines.fake.programs.shell.state import State
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
    ShellSyntaxError,
    Simple,
    Subshell,
)
from podwright.engines.fake.programs.shell.traps import Traps
from podwright.engines.fake.programs.streams import Pipe, Stream

if TYPE_CHECKING:
    from podwright.engines.fake.process import Process

SYNTAX_ERROR = 2
TURN = 64
"""Rounds of a loop after which others get their turn."""


class Shell:
    def __init__(self, context: Context, state: State) -> None:
        self.context = context
        self.state = state
        self.traps = Traps(context.process)
        self.expansion = Expansion(self)
        self.children: dict[int, Process] = {}
        """In the background, ended or not, until they are waited for."""
        self.substituted: int | None = None
        """Status of the last substitution in the command at hand."""
        self.unchecked = 0
        """Inside a condition: a failure does not end a shell with -e."""
        self.loops = 0
        """That the command at hand is in, in this function."""
        self._rounds = 0

    @property
    def fds(self) -> dict[int, Stream]:
        return self.context.fds

    def context_here(self, argv: list[str] | None = None) -> Context:
        """For a program that runs within this shell."""
        state = self.state
        return Context(
            self.context.process, argv or self.context.argv, state.environment, state.cwd, self.fds
        )

    async def complain(self, text: str) -> None:
        await self.context.complain(f"{self.context.name}: {text}")

    # The whole

    async def main(self, work: Awaitable[int]) -> int:
        """Do `work` as everything that this process does, the trap of its end included."""
        code = await self._bounded(work)
        script = self.traps.scripts.pop(0, "")
        if script:
            self.state.status = code
            code = await self._bounded(self._finally(script, code))
        return code

    async def _finally(self, script: str, code: int) -> int:
        await self.evaluate(script)
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
        except RecursionError:
            await self.complain("too many commands in each other")
        return SYNTAX_ERROR

    async def evaluate(self, script: str) -> int:
        """Run a text as commands of this shell. ShellSyntaxError."""
        parser = Parser(script)
        while (commands := parser.next()) is not None:
            await self.run(commands)
        return self.state.status

    async def caught(self) -> None:
        """Run the traps of signals that came."""
        while script := self.traps.take():
            status = self.state.status
            with self.traps.running():
                await self.evaluate(script)
            self.state.status = status

    async def output_of(self, commands: Commands) -> str:
        """What `commands` write, run in a subshell."""
        pipe = Pipe()
        process = self.fork(commands, {**self.fds, 1: pipe.writer})
        pipe.writer.close()
        try:
            content = await self.context.read_all(pipe.reader)
        finally:
            pipe.reader.close()
        self.substituted = await process.wait()
        return content.replace(b"\0", b"").decode(errors="surrogateescape")

    # Lists

    async def run(self, commands: Commands, *, last: bool = False) -> int:
        """`last`: the shell has nothing to do after them."""
        for number, item in enumerate(commands.items):
            await self.caught()
            await self._and_or(item, last and number == len(commands.items) - 1)
        return self.state.status

    async def _and_or(self, item: AndOr, last: bool) -> None:
        if item.background:
            self._background(item)
            return
        pipelines = [("", item.first), *item.rest]
        for number, (operator, pipeline) in enumerate(pipelines):
            if operator and (self.state.status == 0) != (operator == "&&"):
                continue
            is_last = number == len(pipelines) - 1
            if is_last:
                await self._pipeline(pipeline, last)
            else:
                with self.condition():
                    await self._pipeline(pipeline, False)
            failed = self.state.status != 0 and is_last and not pipeline.negated
            if failed and "e" in self.state.options and not self.unchecked:
                raise ExitShell(self.state.status)
        await self.caught()

    def _background(self, item: AndOr) -> None:
        foreground = AndOr(item.first, item.rest)
        # POSIX: what runs in the background does not read what the shell reads.
        process = self.fork(Commands((foreground,)), {**self.fds, 0: Stream()})
        # Nor do the keys of a terminal end it.
        process.ignored = process.ignored | {signal.SIGINT, signal.SIGQUIT}
        self.children[process.pid] = process
        self.state.last_background = process.pid
        self.state.status = 0

    @contextmanager
    def condition(self) -> Iterator[None]:
        self.unchecked += 1
        try:
            yield
        finally:
            self.unchecked -= 1

    async def _pipeline(self, pipeline: Pipeline, last: bool) -> None:
        if len(pipeline.commands) == 1:
            if pipeline.negated:
                with self.condition():
                    await self.command(pipeline.commands[0])
            else:
                await self.command(pipeline.commands[0], last=last)
        else:
            self.state.status = await self._piped(pipeline.commands)
        if pipeline.negated:
            self.state.status = int(not self.state.status)

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
        state, inherited, unchecked = self.state.copy(), self.traps.inherited(), self.unchecked

        async def forked(context: Context) -> int:
            shell = Shell(context, state)
            shell.traps.scripts.update(inherited)
            shell.unchecked = unchecked
            return await shell.main(shell.run(commands, last=True))

        process = self.context.process
        shared = {number: stream.share() for number, stream in fds.items()}
        return self.context.inside.spawn(
            forked, process.argv, shared, env=state.environment, cwd=state.cwd, parent=process
        )

    # Commands

    async def command(self, command: Command, *, last: bool = False) -> None:
        if isinstance(command, Simple):
            await simple.run(self, command, last=last)
            return
        if isinstance(command, Function):
            self.state.functions[command.name] = command.body
            self.state.status = 0
            return
        if isinstance(command, Subshell):
            async with Redirected(self, command.redirections) as ready:
                if ready:
                    self.state.status = await self.fork(command.body, self.fds).wait()
            return
        async with Redirected(self, command.redirections) as ready:
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
            if self.state.status == 0:
                await self.run(body)
                return
        self.state.status = 0
        if command.otherwise is not None:
            await self.run(command.otherwise)

    async def _loop(self, command: Loop) -> None:
        status = 0

        async def round() -> bool:
            nonlocal status
            with self.condition():
                await self.run(command.condition)
            if (self.state.status == 0) == command.until:
                return False
            await self.run(command.body)
            status = self.state.status
            return True

        while await self._round(round):
            pass
        self.state.status = status

    async def _for(self, command: For) -> None:
        if command.words is None:
            values = list(self.state.positional)
        else:
            values = await self.expansion.fields(command.words)
        self.state.status = 0
        for value in values:
            self.state.set(command.name, value)

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
            self.state.status = 0
            if jump.levels > 1:
                raise type(jump)(jump.levels - 1) from None
            return isinstance(jump, Continue)
        finally:
            self.loops -= 1

    async def _case(self, command: Case) -> None:
        text = await self.expansion.text(command.word)
        self.state.status = 0
        for patterns, body in command.items:
            for pattern in patterns:
                if compiled(await self.expansion.pattern(pattern)).match(text):
                    await self.run(body)
                    return
