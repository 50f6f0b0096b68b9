"""The inside of a fake container: what its processes share.

It is made when something in the container does more than wait: a program, an exec, a line of log.
"""

from __future__ import annotations

import itertools
import posixpath
import signal
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from podwright.engines.base import Container
from podwright.engines.fake import command as commands
from podwright.engines.fake.output import Descriptor, Output, log_of
from podwright.engines.fake.process import Process
from podwright.engines.fake.programs import NAMES, find, idle_seconds
from podwright.engines.fake.programs.context import Context, Program
from podwright.engines.fake.programs.files import Files
from podwright.engines.fake.programs.ports import Ports
from podwright.engines.fake.programs.streams import Pipe, Stream
from podwright.engines.fake.programs.terminal import Terminal
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.engines.fake.world import FakeContainer, World

FIRST = 1
"""The number of the first process, and of its group."""
MEMORY_LIMIT = 64 << 20
"""Bytes that a program may hold when its container has no limit of its own."""

_GENERATED = ("/etc/group", "/etc/hostname", "/etc/hosts", "/etc/passwd", "/etc/resolv.conf")


class Inside:
    def __init__(self, world: World, made: FakeContainer, container: Container) -> None:
        self.clock = world.clock
        self._world = world
        self.container = container
        self._made = made
        config = container.config
        self.output = Output(
            world.clock.now,
            log_of(container, world.logs, world.clock),
            terminal=config.tty,
        )
        self.terminal = (
            Terminal(_Shown(self.output), lambda number: self.signal_group(FIRST, number))
            if config.tty
            else None
        )
        """That of the first process."""
        self.stdin = Pipe() if config.stdin and not config.tty else None
        """What the first process reads; without it and without a terminal, nothing."""
        self.stdin_ended = not config.stdin
        """Nobody hears any more what clients send to the first process."""
        self.processes: dict[int, Process] = {}
        """By number, but for the first one, which may be there without any of this."""
        self._numbers = itertools.count(2)

    @cached_property
    def command(self) -> commands.Command:
        return commands.command(self.container)

    @cached_property
    def files(self) -> Files:
        config = self.container.config
        return Files(
            config.mounts,
            generated=self._generated,
            names=_GENERATED,
            programs=NAMES,
            directories=(self.command.cwd,),
            readonly=config.linux.security_context.readonly_rootfs,
        )

    @property
    def has_own_numbers(self) -> bool:
        """Whether its PID namespace is its own. (The numbers in it always look so.)"""
        options = self.container.config.linux.security_context.namespace_options
        return options.pid == cri.NamespaceMode.CONTAINER

    @property
    def memory_limit(self) -> int:
        return self.container.config.linux.resources.memory_limit_in_bytes or MEMORY_LIMIT

    @property
    def ports(self) -> Ports:
        """Of the network that it is in."""
        return self._world.ports_of(self._made.sandbox, self.container.sandbox)

    @property
    def unknown_programs_run(self) -> bool:
        return self._world.scenario.unknown_programs == "run"

    # Processes

    def standard_streams(self) -> dict[int, Stream]:
        """The three descriptors of the first process."""
        if self.terminal is not None:
            stream = self.terminal.stream
            return {0: stream.share(), 1: stream.share(), 2: stream.share()}
        return {
            0: self.stdin.reader.share() if self.stdin is not None else Stream(),
            1: Descriptor(self.output, "stdout"),
            2: Descriptor(self.output, "stderr"),
        }

    def end_stdin(self) -> None:
        """What the first process reads has its end; fine when it had."""
        if self.stdin_ended:
            return
        self.stdin_ended = True
        if self.terminal is not None:
            self.terminal.end_input()
        elif self.stdin is not None:
            self.stdin.writer.close()

    def begin(self, first: Process, argv: list[str], program: Program) -> None:
        """Let `program` run as the first process."""
        first.argv, first.fds = argv, self.standard_streams()
        first.run(program, Context(first, argv, dict(self.command.env), self.command.cwd, first.fds))

    def spawn(
        self,
        program: Program,
        argv: list[str],
        fds: dict[int, Stream],
        *,
        env: dict[str, str] | None = None,
        cwd: str = "",
        parent: Process | None = None,
    ) -> Process:
        """A new process, whose `fds` become its own: it closes them. Without a parent it is an exec's."""
        process = Process(next(self._numbers), argv, self)
        process.fds = fds
        if parent is not None:
            process.parent, process.group, process.ignored = parent.pid, parent.group, parent.ignored
        self.processes[process.pid] = process
        seconds = idle_seconds(argv) if program is find(argv[0]) else None
        if seconds is not None:
            process.idle(seconds)
        else:
            environment = dict(self.command.env) if env is None else env
            process.run(program, Context(process, argv, environment, cwd or self.command.cwd, fds))
        return process

    def resolve(self, argv: list[str], cwd: str = "") -> tuple[Program, list[str]] | None:
        """The program that `argv` names, and the arguments it really gets; None: there is no such program.

        A file of the container that begins with "#!" is given to the program named there.
        """
        if "/" in argv[0]:
            path = posixpath.normpath(posixpath.join(cwd or self.command.cwd, argv[0]))
            words = self.files.first_line(path)
            if words.startswith("#!"):
                interpreter = words[2:].split()
                if interpreter and posixpath.basename(interpreter[0]) == "env":
                    del interpreter[0]
                program = find(interpreter[0]) if interpreter else None
                return (program, [*interpreter, argv[0], *argv[1:]]) if program is not None else None
        program = find(argv[0])
        return (program, argv) if program is not None else None

    def find(self, pid: int) -> Process | None:
        return self._made.process if pid == 1 else self.processes.get(pid)

    def all(self) -> Sequence[Process]:
        first = self._made.process
        if first is not None and not first.argv:
            first.argv = self.command.argv
        return [*([first] if first is not None else ()), *self.processes.values()]

    def signal_group(self, group: int, number: int) -> None:
        for each in list(self.all()):
            if each.group == group:
                each.signal(number)

    def gone(self, process: Process) -> None:
        self.processes.pop(process.pid, None)

    def end(self) -> None:
        """The first process has ended: the kernel kills all others."""
        for each in list(self.processes.values()):
            each.signal(signal.SIGKILL)
        self.output.close()

    # Files that are there without having been written

    def _generated(self, path: str) -> bytes | None:
        text = self._text(path)
        return text.encode(errors="surrogateescape") if text is not None else None

    def _text(self, path: str) -> str | None:
        if path.startswith("/proc/"):
            _, _, number, name = path.split("/", 3) if path.count("/") == 3 else ("", "", "", "")
            process = self.find(int(number)) if number.isdecimal() else None
            return self._of_process(process, name) if process is not None else None
        match path:
            case "/etc/hostname":
                return f"{self.command.hostname}\n"
            case "/etc/hosts":
                return "127.0.0.1\tlocalhost\n::1\tlocalhost\n" + "".join(
                    f"{ip}\t{self.command.hostname}\n" for ip in self.container.sandbox.facts.ips
                )
            case "/etc/resolv.conf":
                if not self.container.sandbox.config.HasField("dns_config"):
                    return _of_host("/etc/resolv.conf")
                dns = self.container.sandbox.config.dns_config
                lines = [f"nameserver {each}" for each in dns.servers]
                for word, values in (("search", dns.searches), ("options", dns.options)):
                    if values:
                        lines.insert(0 if word == "search" else len(lines), " ".join((word, *values)))
                return "".join(f"{line}\n" for line in lines)
            case "/etc/passwd":
                return commands.passwd(self.container)
            case "/etc/group":
                return commands.group(self.container)
        return None

    def _of_process(self, process: Process, name: str) -> str | None:
        argv = process.argv or self.command.argv
        command = self.command
        match name:
            case "cmdline":
                return "".join(f"{each}\0" for each in argv)
            case "comm":
                return f"{argv[0].rpartition('/')[2][:15]}\n"
            case "status":
                quiet = self.container.config.linux.security_context.no_new_privs
                return (
                    f"Name:\t{argv[0].rpartition('/')[2][:15]}\nState:\tS (sleeping)\n"
                    f"Pid:\t{process.pid}\nPPid:\t{process.parent}\n"
                    + "Uid:"
                    + f"\t{command.uid}" * 4
                    + "\nGid:"
                    + f"\t{command.gid}" * 4
                    + f"\nNoNewPrivs:\t{int(quiet)}\n"
                )
        return None


class _Shown:
    """The container's output as the screen of its terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output

    async def put(self, data: bytes) -> None:
        self._output.show("stdout", data)
        if self._output.full:
            await self._output.settled()

    def offer(self, data: bytes) -> None:
        if not self._output.full:
            self._output.show("stdout", data)


def _of_host(path: str) -> str:
    """A file that pods have from their node; "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
