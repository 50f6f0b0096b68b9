"""A fake node in this process: the real core on the fake engine, recorded, scripted, and crashed at will.

async with FakeNode(clock="virtual") as node:
    pod = await node.runtime.run_sandbox("web")
    node.inject_error("CreateContainer", errors.Unavailable("busy"))
    await node.advance("10m")
    await node.crash()
    node.calls.assert_order(["RunPodSandbox web", "CreateContainer"])
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from podwright.api import Cri
from podwright.cli import find
from podwright.clock import Clock, VirtualClock
from podwright.config import Config
from podwright.engines.fake.faults import Fault, Faults
from podwright.engines.fake.scenario import Scenario, load, parse, parse_yaml, to_tree
from podwright.engines.fake.subject import Match
from podwright.engines.fake.values import seconds
from podwright.engines.fake.world import World
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.server.endpoint import STARTING
from podwright.state.lock import locked
from podwright.testing.calls import KEPT, Calls
from podwright.testing.front import Front
from podwright.testing.given import fault_error, known
from podwright.testing.life import DATABASE, Life

if TYPE_CHECKING:
    from podwright import library
    from podwright.core.records import Records
    from podwright.hooks.running import Hooks
    from podwright.testing.socket import Socket

Script = Scenario | Path | str | Mapping[str, Any] | None
"""A scenario: as such, a file, YAML text of more than one line, or what YAML gives. None: an empty one."""


class FakeNode:
    """A node with its server. Nothing of it is left when its block is left.

    `root` is the state's directory (None: a temporary one). `clock` "virtual" stands still until `advance`,
    "system" is the machine's, None leaves it to the scenario. `seed` counts more than the scenario's. `kept`
    calls are remembered. `hooks` are a site's, to be tried.
    """

    def __init__(
        self,
        scenario: Script = None,
        *,
        root: Path | str | None = None,
        clock: Literal["virtual", "system"] | Clock | None = "virtual",
        seed: int | None = None,
        kept: int = KEPT,
        config: Config | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self._root = None if root is None else Path(root)
        self._given = config
        self._hooks = hooks
        self.config: Config
        """There once the node has been entered."""
        self._seed = seed
        self._script = self._read(scenario)
        if clock is None or isinstance(clock, str):
            clock = msgspec.structs.replace(self._script, clock=clock or self._script.clock).make_clock()
        self.world = World(clock, self._script)
        """Everything that outlives a crash of the server; for tests that want to look closely."""
        self.world.on_crash = self._struck
        self.calls = Calls(kept, clock.now)
        """What was asked so far."""
        self.crashes = 0
        """How often the server has crashed."""
        self._front = Front(self.world, self.calls)
        self._life: Life | None = None
        self._starting: asyncio.Task[None] | None = None
        """Its last start, which may wait for the end of a downtime."""
        self._stays_down = False
        self._sockets: list[Socket] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> FakeNode:
        async with AsyncExitStack() as stack:
            if self._given is not None:
                self.config = self._given
            else:
                root = self._root
                if root is None:
                    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podwright-fake-")))
                self.config = Config(root=str(root), run=str(root / "run"), engine="fake")
            stack.enter_context(locked(self.config.root_path))
            stack.push_async_callback(self._end)
            self._starting = asyncio.get_running_loop().create_task(self._start())
            await self.started()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # Asking it

    @property
    def cri(self) -> Cri:
        """Every CRI call, recorded and struck by faults. It stays the same when the node starts again."""
        return self._front.cri

    @property
    def runtime(self) -> library.Runtime:
        """The library's objects over `cri`."""
        from podwright import library

        return library.Runtime(self.cri, self.config, clock=self.world.clock)

    @asynccontextmanager
    async def serve(self, path: Path | str) -> AsyncIterator[Path]:
        """Serve the CRI at the Unix socket `path` besides, for clients of any kind, until the block is left.

        When the node crashes, connections break and are refused until it starts again.
        """
        from podwright.server.endpoint import socket_path
        from podwright.testing.socket import Socket

        async with Socket.claim(socket_path(str(path))) as socket:
            self._sockets.append(socket)
            if self.is_up:
                await socket.listen()
                socket.open(self._front.at_socket)
            try:
                yield socket.path
            finally:
                self._sockets.remove(socket)

    # What happens on it

    def scenario(self, scenario: Script) -> None:
        """Replace the scenario. InvalidArgument that names what is wrong with it."""
        self.world.scenario = self._read(scenario)

    @property
    def faults(self) -> Faults:
        """Those that can still strike."""
        return self.world.faults

    def inject_error(
        self, on: str, error: PodwrightError, *, count: int = 1, skip: int = 0, **whom: Any
    ) -> int:
        """Let the next `count` calls (0: all) of an rpc, or steps of the engine, fail with `error`.

        `whom` says for which pod, namespace, container, image, id or labels; returns the fault's id.
        """
        return self.faults.add(
            Fault(on=on, error=fault_error(error), count=count, skip=skip, match=Match(**whom))
        )

    def exit(self, container: str, code: int = 0, *, oom: bool = False) -> None:
        """End the program of a running container: by id, the beginning of one, "name" or "pod/name".

        `oom`: the kernel killed it for want of memory, and `code` is 137 unless it is given. NotFound;
        FailedPrecondition when it does not run.
        """
        if not 0 <= code <= 255:
            raise InvalidArgument("code", f"{code} is no exit code: those are 0 to 255")
        found = self.find(container, "container")
        made = self.world.containers.get(found.id)
        if made is None or made.process is None:
            raise FailedPrecondition(f"container {found.title} ({found.id[:12]}) does not run")
        self.world.ended(made, code or (137 if oom else 0), oom=oom)

    def lose(self, pod: str) -> None:
        """Let a pod's sandbox break, as when its network namespace vanishes: by id, the beginning of one,
        "name" or "namespace/name".

        NotFound; FailedPrecondition when it is not ready.
        """
        found = self.find(pod, "pod")
        made = self.world.sandboxes.get(found.id)
        if made is None or not made.ready:
            raise FailedPrecondition(f"pod {found.title} ({found.id[:12]}) is not ready")
        self.world.pause_ended(made)

    def find(self, word: str, kind: find.Kind) -> find.Found:
        """The container or pod that `word` names, also while the server is down. NotFound,
        InvalidArgument when it names several."""
        return find.choose(word, known(self.records), (kind,))

    @property
    def records(self) -> Records:
        """What core knows, or knew when it crashed."""
        assert self._life is not None, "the node has not been entered"
        return self._life.runtime.records

    async def advance(self, time: str | float) -> None:
        """Let time pass on the virtual clock: "10m", or seconds. Everything due happens, in its order."""
        clock = self.world.clock
        if not isinstance(clock, VirtualClock):
            raise FailedPrecondition(
                'the machine\'s time cannot be advanced: FakeNode(clock="virtual"), or serve --clock virtual'
            )
        await clock.advance(_length(time, "time"))

    # Crashes

    @property
    def is_up(self) -> bool:
        """Whether calls are answered."""
        return self._front.runtime is not None

    @property
    def state(self) -> Literal["up", "starting", "down"]:
        """ "starting" is recovery: calls get Unavailable, which in the state "down" nobody answers."""
        if self.is_up:
            return "up"
        return "starting" if self._life is not None and not self._life.killed else "down"

    async def crash(
        self, downtime: str | float | None = 0, *, containers: Literal["keep", "lose"] = "keep"
    ) -> None:
        """`kill` the server and await its next start, with its recovery. A virtual clock is advanced by
        `downtime`. None: it stays down until `restart`."""
        await self.kill(downtime, containers=containers)
        if downtime is not None:
            if isinstance(self.world.clock, VirtualClock):
                await self.advance(downtime)
            await self.started()

    async def kill(
        self, downtime: str | float | None = 0, *, containers: Literal["keep", "lose"] = "keep"
    ) -> None:
        """Kill the server as kill -9 would, and let it start again after `downtime` by the node's clock.

        From this instruction on nothing of the server happens: no roll-back, no answer, no write. Containers
        go on meanwhile; "lose" is a crash of the whole machine, where they are gone, too. Returns when the
        connections are broken. FailedPrecondition when the server is down already.
        """
        if containers not in ("keep", "lose"):
            raise InvalidArgument("containers", f"{containers!r} is none of 'keep' and 'lose'")
        if self.state == "down":
            raise FailedPrecondition("the server is down already")
        buried = self._kill(None if downtime is None else _length(downtime, "downtime"), containers)
        await buried.wait()

    async def restart(self) -> None:
        """Stop the server as SIGTERM does, unless it is down, and start it now."""
        await self._stop_starting()
        life = self._life
        assert life is not None, "the node has not been entered"
        if life.killed:
            await self._bury(life)
        else:
            for socket in self._sockets:
                await socket.close()
            await life.close()
        self._starting, self._stays_down = asyncio.get_running_loop().create_task(self._start()), False
        await self.started()

    async def started(self) -> None:
        """Wait until the server is up. What kept it from starting is raised; so is FailedPrecondition when it
        stays down until a `restart`."""
        while not self.is_up:
            starting = self._starting
            if self._stays_down or starting is None:
                raise FailedPrecondition("the server is down until it is restarted")
            await asyncio.wait([starting])
            if starting is self._starting and not starting.cancelled():
                starting.result()

    async def reset(self) -> None:
        """Begin anew: no pods, no images, no calls, and the scenario as it was at first. Connections stay.

        The files of pods that were made by `podwright run` go, too; a client's own are its own affair."""
        from podwright.kube.volumes import discard

        await self._stop_starting()
        life = self._life
        assert life is not None, "the node has not been entered"
        if not life.killed:
            life.kill("the node was reset")
        await life.bury()
        self.world.reboot()
        self.world.close()
        for sandbox in life.runtime.records.sandboxes:
            # The logs and other files of pods that `podwright run` has made.
            await asyncio.to_thread(discard, self.config.root_path, sandbox.config.metadata)
        self.world = self._front.world = World(self.world.clock, self._script)
        self.world.on_crash = self._struck
        for name in ("", "-wal", "-shm"):
            (self.config.root_path / f"{DATABASE}{name}").unlink(missing_ok=True)
        self.calls.clear()
        self._starting, self._stays_down = asyncio.get_running_loop().create_task(self._start()), False
        await self.started()

    def _struck(self, fault: Fault) -> None:
        if self.state != "down":
            self._kill(fault.downtime.draw(self.world.chance), "keep")

    def _kill(self, downtime: float | None, containers: str) -> asyncio.Event:
        """Returns what is set when the rest of it is cleared away."""
        life = self._life
        assert life is not None, "the node has not been entered"
        life.kill()
        self.crashes += 1
        if containers == "lose":
            self.world.reboot()
        over, buried = asyncio.Event(), asyncio.Event()
        if downtime:
            self.world.clock.call_later(downtime, over.set)
        elif downtime is not None:
            over.set()
        self._starting = asyncio.get_running_loop().create_task(self._revive(life, over, buried))
        self._stays_down = downtime is None
        return buried

    async def _revive(self, life: Life, over: asyncio.Event, buried: asyncio.Event) -> None:
        try:
            await self._bury(life)
        finally:
            buried.set()
        await over.wait()
        await self._start()

    async def _bury(self, life: Life) -> None:
        # What a client does when its connection breaks comes after the crash, not after all is cleared away.
        await asyncio.gather(*(socket.break_off() for socket in self._sockets))
        await life.bury()

    # Starting and ending

    async def _start(self) -> None:
        self._front.shut(STARTING)
        for socket in self._sockets:
            await socket.listen()
        life = self._life = Life(self.config, self.world, self._front, self._hooks)
        await life.open()
        for socket in self._sockets:
            socket.open(self._front.at_socket)

    async def _stop_starting(self) -> None:
        """What is down shall not come up by itself; what starts has started."""
        if self._starting is None or self._starting.done():
            return
        if self.state == "down":
            self._starting.cancel()
        await asyncio.wait([self._starting])

    async def _end(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        for socket in self._sockets:
            await socket.close()
        if self._life is not None:
            await (self._life.bury() if self._life.killed else self._life.close())
        self.world.close()

    def _read(self, scenario: Script) -> Scenario:
        match scenario:
            case Scenario():
                # Made of its classes, in which nobody has checked the values.
                found = parse(to_tree(scenario))
            case Path():
                found = load(scenario)
            case str():
                found = parse_yaml(scenario) if "\n" in scenario else load(Path(scenario))
            case _:
                found = parse(scenario)
        if self._seed is None:
            return found
        if self._seed < 0:
            raise InvalidArgument("seed", f"{self._seed} is negative")
        return msgspec.structs.replace(found, seed=self._seed)


def _length(time: str | float, field: str) -> float:
    try:
        return seconds(time)
    except ValueError as error:
        raise InvalidArgument(field, str(error)) from error
