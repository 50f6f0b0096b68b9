"""How a fake container's program starts, and what its script adds: lines of log, an end."""

from __future__ import annotations

import signal
from functools import lru_cache

from podwright.clock import Timer
from podwright.engines.base import Container, Presence
from podwright.engines.fake import command
from podwright.engines.fake.inside import Inside
from podwright.engines.fake.output import Log, Output
from podwright.engines.fake.process import First
from podwright.engines.fake.programs import find, idle_seconds
from podwright.engines.fake.scenario import ContainerScript, ExitScript, LogScript
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import FakeContainer, World
from podwright.errors import PodwrightError
from podwright.spec.signals import parse_signal


def start(
    world: World, made: FakeContainer, container: Container, subject: Subject, script: ContainerScript
) -> None:
    """Start the program of `container` as `script` wants it.

    PodwrightError with the script's words, or when there is no such program and the scenario wants that to
    fail; FailedPrecondition when its log cannot be written.
    """
    if script.start_error:
        raise PodwrightError(script.start_error)
    restored = made.restored
    ran = restored.ran if restored is not None else 0.0
    argv = restored.argv if restored is not None else script.program or command.argv(container)
    found = find(argv[0])
    if found is None and "/" in argv[0] and container.config.mounts:
        resolved = _inside(world, made, container).resolve(argv)
        if resolved is not None:
            found, argv = resolved
    if found is None and world.scenario.unknown_programs == "fail":
        raise PodwrightError(missing(argv[0]))
    if container.log_path:
        Log(world.logs, container.log_path).make()
    exit = _exit(world, subject, script)
    made.presence, made.started = Presence.RUNNING, world.clock.monotonic()
    first = made.process = First(
        world,
        made,
        deaf=_numbers(tuple(script.ignore)),
        stopping=script.stopping.draw(world.chance),
        scripted=exit is not None,
    )
    if exit is not None:
        delay = max(0.0, exit.after.draw(world.chance) - ran)
        made.timer = world.clock.call_later(delay, _end, world, made, exit.code, exit.oom)
    if script.logs:
        output = _inside(world, made, container).output
        output.scripted = [Lines(world, output, each) for each in script.logs]
    if restored is not None and restored.files:
        _inside(world, made, container).files.written.update(restored.files)
    seconds = idle_seconds(argv)
    if found is not None and seconds is None:
        _inside(world, made, container).begin(first, list(argv), found)
    else:
        if script.program is not None or restored is not None:
            first.argv = argv
        # A program that is no built-in does whatever it does, until a signal ends it.
        first.idle(max(0.0, seconds - ran) if seconds is not None else float("inf"))


def missing(name: str) -> str:
    """A runtime's words for a program that is not there."""
    if "/" in name:
        return f'exec: "{name}": stat {name}: no such file or directory'
    return f'exec: "{name}": executable file not found in $PATH'


class Lines:
    """The lines that a script makes a container write: one timer, no task."""

    __slots__ = ("_left", "_number", "_output", "_script", "_timer", "_world")

    def __init__(self, world: World, output: Output, script: LogScript) -> None:
        self._world = world
        self._output = output
        self._script = script
        self._number = 0
        self._timer: Timer = world.clock.call_later(script.after.draw(world.chance), self._write)

    def stop(self) -> None:
        self._timer.cancel()

    def _write(self) -> None:
        script, world = self._script, self._world
        if self._output.full:
            self._output.hold_up(self._write)
            return
        text = script.text.replace("{n}", str(self._number))
        self._number += 1
        if script.every is not None and self._number != script.count:
            self._timer = world.clock.call_later(script.every.draw(world.chance), self._write)
        self._output.write(script.stream, f"{text}\n".encode())


def _end(world: World, made: FakeContainer, code: int, oom: bool) -> None:
    world.ended(made, 128 + signal.SIGKILL if oom and not code else code, oom=oom)


def _exit(world: World, subject: Subject, script: ContainerScript) -> ExitScript | None:
    """The scripted end of this start."""
    exit = script.exit
    if exit is not None and exit.times:
        key = ("exit", subject.namespace, subject.pod, subject.container)
        world.counts[key] += 1
        if world.counts[key] > exit.times:
            return None
    return exit


@lru_cache
def _numbers(names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(parse_signal(name, "ignore").number for name in names)


def _inside(world: World, made: FakeContainer, container: Container) -> Inside:
    if made.inside is None:
        made.inside = Inside(world, made, container)
    return made.inside
