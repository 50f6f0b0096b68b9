"""The OCI runtimes behind the handlers: which there are, what they can do, how each is called.

Also the one workaround that a hybrid cgroup host needs for crun (`Runtime.create_view`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Handler, Json
from podwright.engines.node import runtime_features
from podwright.engines.node.places import Places
from podwright.engines.node.runtime_features import Features
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.linux import cgroups, spawn
from podwright.linux import syscalls as sys
from podwright.linux.threads import in_fresh_thread
from podwright.linux.waiting import to_the_end


@dataclass(frozen=True, slots=True)
class Runtime:
    """One handler's runtime, found on this host."""

    handler: str
    program: str
    """Absolute path."""
    options: tuple[str, ...]
    """Global options put before every command."""
    root: Path
    """Where it keeps its state."""
    hide_unified: bool
    """`create` fails as long as it sees the unified cgroup hierarchy."""
    privileged_without_host_devices: bool = False

    @property
    def kind(self) -> str:
        """The program's own name: which of the runtimes' peculiarities apply."""
        return runtime_features.kind_of(self.program)

    @property
    def sandboxed(self) -> bool:
        """Its processes are not processes of this host: pids name its supervisor (gVisor)."""
        return self.kind == "runsc"

    @property
    def shares_network(self) -> bool:
        """Its containers' sockets are those of the pod's network namespace, not of a stack of its own."""
        return not self.sandboxed or "-network host" in " ".join(self.options).replace("=", " ")

    @property
    def passes_output_through(self) -> bool:
        """`exec` hands its own streams to the program, and ends when the program does."""
        return self.kind in ("crun", "runsc")

    def argv(self, *command: str) -> list[str]:
        # While it makes a process its standard error is that of the container, whose log it would warn into.
        # What it fails with it says there all the same.
        quiet = ("--log", os.devnull) if self.kind == "runc" else ()
        return [self.program, "--root", str(self.root), *quiet, *self.options, *command]

    def knows(self, id: str) -> bool:
        """Whether it has any state of `id`. All runtimes keep it in ROOT/ID or files that start so."""
        return (self.root / id).exists() or any(self.root.glob(f"{id}*"))


class Runtimes:
    """All handlers of the configuration."""

    def __init__(self, config: Config, places: Places) -> None:
        self._config = config
        self._places = places
        self._found: dict[str, Runtime] = {}
        self._broken: dict[str, str] = {}
        self._probed: dict[str, Handler] = {}
        self._probing = asyncio.Lock()
        self._features: dict[str, Features] = {}
        self.versions: dict[str, str] = {}
        """Filled by `handlers`."""

    def find(self) -> None:
        """Look the programs up: no program is started."""
        layout = cgroups.layout()
        blind = layout.hybrid and bool(layout.unified_controllers)
        for name, handler in self._config.handlers.items():
            program = shutil.which(handler.path)
            if program is None:
                missing = f"{handler.path} is not installed" if handler.path else "it has no `path`"
                self._broken[name] = missing
                continue
            options = list(handler.options)
            if self._config.cgroup_driver == "systemd":
                options.append("--systemd-cgroup")
            kind = Path(program).name.partition("-")[0]
            if kind == "runsc" and not any("-network" in option for option in options):
                # A network stack of gVisor's own would take the pod's addresses away from its other
                # containers: each container is a sandbox of its own here, and they share one network.
                options.append("--network=host")
            hide = blind and kind == "crun"
            if hide and shutil.which("nsenter") is None:
                self._broken[name] = (
                    f"crun refuses hybrid cgroups and the controllers "
                    f"{', '.join(sorted(layout.unified_controllers))} are on {layout.unified}: install "
                    f"nsenter (util-linux), mount them as cgroup v1, or use runc"
                )
                continue
            self._found[name] = Runtime(
                name,
                str(Path(program).absolute()),
                tuple(options),
                self._places.runtime_root(name),
                hide,
                handler.privileged_without_host_devices,
            )

    def make_roots(self) -> None:
        """The directories in which the runtimes keep their state."""
        for runtime in self._found.values():
            runtime.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, name: str) -> Runtime:
        """The runtime of handler `name`, "" being the default one; errors as `Engine.check_handler`."""
        name = name or self._config.default_handler
        if name in self._found:
            return self._found[name]
        if name in self._broken:
            raise FailedPrecondition(
                f"runtime handler {name!r} cannot work on this host: {self._broken[name]}"
            )
        known = ", ".join(sorted(self._config.handlers))
        raise InvalidArgument("runtime_handler", f"no handler {name!r} is configured; there are: {known}")

    def as_configured(self, name: str) -> Runtime:
        """The runtime of handler `name` as it would be if it could work here; not to be run."""
        name = name or self._config.default_handler
        return Runtime(name, self._config.handlers[name].path, (), self._places.runtime_root(name), False)

    def of_existing(self, name: str) -> Runtime | None:
        """As `get`, for what is there: None when its handler has left the configuration or the host."""
        try:
            return self.get(name)
        except PodwrightError:
            return None

    def left_behind(self, id: str) -> Sequence[Path]:
        """What handlers that have left the configuration or the host still keep of `id`."""
        roots = self._places.runtime_root(id).parent
        gone = [each for each in roots.iterdir() if each.name not in self._found] if roots.is_dir() else []
        return [path for root in gone for path in root.glob(f"{id}*")]

    def having(self, id: str) -> Sequence[Runtime]:
        """Those that have state of `id`, whatever its record says."""
        return [each for each in self._found.values() if each.knows(id)]

    def all(self) -> Sequence[Runtime]:
        return list(self._found.values())

    async def handlers(self) -> tuple[Handler, ...]:
        """Every handler with what it can do. The runtimes are asked once, at the first call."""
        async with self._probing:
            missing = [name for name in self._found if name not in self._probed]
            for handler in await asyncio.gather(*(self._probe(self._found[name]) for name in missing)):
                self._probed[handler.name] = handler
        return tuple(
            self._probed[name] if name in self._probed else Handler(name, False, self._broken[name])
            for name in self._config.handlers
        )

    async def recursive_read_only(self, name: str) -> bool:
        """Whether the handler can make a mount and all below it read-only."""
        wanted = name or self._config.default_handler
        return any(each.recursive_read_only for each in await self.handlers() if each.name == wanted)

    async def maps_ids(self, name: str) -> bool:
        """Whether the handler's runtime itself maps the ids of single mounts."""
        await self.handlers()
        return self._features.get(name or self._config.default_handler, Features()).id_maps

    async def no_user_namespaces(self, name: str) -> str:
        """Why the handler cannot run pods with user namespaces of their own; "" if it can."""
        name = name or self._config.default_handler
        if any(each.user_namespaces for each in await self.handlers() if each.name == name):
            return ""
        why = self._broken.get(name) or self._unfit(self._found[name])
        return f"runtime handler {name!r} cannot run pods with user namespaces: {why}"

    def _unfit(self, runtime: Runtime) -> str:
        features = self._features.get(runtime.handler, Features())
        return runtime_features.no_user_namespaces(runtime.kind, features, self._places.all_mapped)

    async def _probe(self, runtime: Runtime) -> Handler:
        try:
            features = await runtime_features.probe(runtime.program)
        except (PodwrightError, OSError) as error:
            self._broken[runtime.handler] = str(error)
            return Handler(runtime.handler, False, str(error))
        self.versions[runtime.handler] = features.version
        self._features[runtime.handler] = features
        return Handler(
            runtime.handler,
            True,
            recursive_read_only=features.recursive_read_only,
            user_namespaces=not self._unfit(runtime),
        )


async def run_with_hooks(runtime: Runtime, *command: str) -> spawn.Finished:
    """Run a command of `runtime` that may run hooks.

    A hook that ends without having read the container's state breaks the pipe in which crun writes it, and
    SIGPIPE would end crun in the middle of its work. An error of writing it only warns of.
    """
    return await spawn.run(runtime.argv(*command), sigpipe=False)


async def delete(runtime: Runtime, id: str) -> str:
    """Make `runtime` forget `id`, whose process has ended; what it complained about, "" if it did not."""
    done = await run_with_hooks(runtime, "delete", id)
    if done.status != 0 and runtime.knows(id):
        # Half made, or a process that the runtime still sees.
        done = await run_with_hooks(runtime, "delete", "--force", id)
    if done.status == 0 or not runtime.knows(id):
        return ""
    return done.stderr.decode(errors="replace").strip()


async def kill(runtime: Runtime, id: str, number: int, *, everything: bool = False) -> str:
    """Send a signal through the runtime; its complaint, "" if there was none."""
    command = ["kill", *(["--all"] if everything else []), id, signal.Signals(number).name]
    done = await spawn.run(runtime.argv(*command))
    return "" if done.status == 0 else done.stderr.decode(errors="replace").strip()


@asynccontextmanager
async def create_view(runtime: Runtime) -> AsyncIterator[list[str]]:
    """The command line of `runtime` for `create`, valid inside the context.

    On a hybrid host crun must not see the unified hierarchy. It is given a mount namespace of its own in
    which an empty file system hides that: a copy of the host's, with its peer groups, so that propagated
    volumes still work. It lasts for one `create` only, for it holds every mount of the host.
    """
    if not runtime.hide_unified:
        yield runtime.argv()
        return
    opening = in_fresh_thread(lambda: _without_unified())
    try:
        namespace = await to_the_end(opening)
    except asyncio.CancelledError:
        # A namespace that stays would keep every mount that the host has now.
        if opening.exception() is None:
            os.close(opening.result())
        raise
    try:
        yield [
            shutil.which("nsenter") or "/usr/bin/nsenter",
            f"--mount=/proc/{os.getpid()}/fd/{namespace}",
            *runtime.argv(),
        ]
    finally:
        os.close(namespace)


def _without_unified() -> int:
    """Called on a thread that ends after it: a mount namespace in which nothing is seen of the hierarchy."""
    unified = cgroups.layout().unified
    assert unified is not None
    sys.unshare(sys.CLONE_NEWNS)
    # What is mounted on a mount spreads as that one does: a hierarchy that is shared, as systemd makes all
    # mounts, would be covered on the host as well, once more with each container.
    sys.mount(None, unified, None, sys.MS_PRIVATE)
    # Covering takes a third less time than unmounting, which waits for every CPU. What crun makes there, a
    # directory for each container, goes with the namespace.
    sys.mount("tmpfs", unified, "tmpfs", data="size=1m,mode=755")
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def as_json(runtime: Runtime) -> Json:
    """For a verbose status."""
    return {"path": runtime.program, "options": list(runtime.options), "root": str(runtime.root)}
