"""The containerd and its host as they are found: which services it has, which handlers can work with it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Handler, Json
from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd, any_of
from podwright.engines.containerd.shims import SHIM, Shim, shim_of
from podwright.engines.node import runtime_features
from podwright.engines.node.places import Places
from podwright.engines.node.runtime_features import Features
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError
from podwright.server.endpoint import silence, socket_path
from podwright.wire.containerd import introspection_pb2, types_pb2

SERVICE = "io.containerd.grpc.v1"
TASKS, TASKS_ID = "io.containerd.runtime.v2", "task"
NEEDED = (
    *("containers", "content", "diff", "events", "images", "introspection", "leases", "namespaces"),
    *("snapshots", "tasks", "version"),
)
"""Ids of the services without which this engine cannot do anything."""
SANDBOXES = ("sandboxes", "sandbox-controllers")
CONTROLLER = "io.containerd.sandbox.controller.v1"


class Shims:
    """All handlers of the configuration. A node.runtimes.Runtimes."""

    def __init__(self, config: Config, containerd: Containerd, places: Places) -> None:
        self._config = config
        self._containerd = containerd
        self._places = places
        self._found: dict[str, Shim] = {}
        self._broken: dict[str, str] = {}
        self._probed: dict[str, tuple[Shim, Features | str]] = {}
        self._probing = asyncio.Lock()

    def find(self, path: str | None = None) -> None:
        """Look which can work with a containerd that looks for shims in `path`; None: our own PATH, and
        nobody knows what containerd has. No program is started."""
        found, broken = dict[str, Shim](), dict[str, str]()
        place = os.environ.get("PATH", os.defpath) if path is None else path
        for name in self._config.handlers:
            try:
                shim = shim_of(self._config, name, self._places, place)
            except (FailedPrecondition, InvalidArgument) as error:
                broken[name] = str(error)
                continue
            if why := self._refused(shim) or ("" if path is None else self._lacks(shim)):
                broken[name] = why
            else:
                found[name] = shim
        self._found, self._broken = found, broken

    def get(self, name: str) -> Shim:
        """The shim of handler `name`, "" being the default one; errors as `Engine.check_handler`."""
        name = name or self._config.default_handler
        if name in self._found:
            return self._found[name]
        if name in self._broken:
            raise FailedPrecondition(
                f"runtime handler {name!r} cannot work with this containerd: {self._broken[name]}"
            )
        known = ", ".join(sorted(self._config.handlers))
        raise InvalidArgument("runtime_handler", f"no handler {name!r} is configured; there are: {known}")

    def as_configured(self, name: str) -> Shim:
        """The shim of handler `name` as it would be if it could work here; not to be run."""
        return shim_of(self._config, name or self._config.default_handler, self._places, None)

    def of_existing(self, name: str) -> Shim | None:
        """As `get`, for what is there: None when its handler has left the configuration or the host."""
        try:
            return self.get(name)
        except PodwrightError:
            return None

    def all(self) -> Mapping[str, Shim]:
        return dict(self._found)

    def versions(self) -> Mapping[str, str]:
        """Filled by `handlers`."""
        return {
            name: features.version
            for name, (_, features) in self._probed.items()
            if isinstance(features, Features) and features.version
        }

    async def handlers(self) -> tuple[Handler, ...]:
        """Every handler with what it can do. Each shim is asked once."""
        return tuple([await self._handler(name) for name in self._config.handlers])

    async def recursive_read_only(self, name: str) -> bool:
        """Whether the handler can make a mount and all below it read-only."""
        features = await self._features(name)
        return isinstance(features, Features) and features.recursive_read_only

    async def maps_ids(self, name: str) -> bool:
        """Whether the handler's runtime itself maps the ids of single mounts."""
        features = await self._features(name)
        return isinstance(features, Features) and features.id_maps

    async def no_user_namespaces(self, name: str) -> str:
        """Why the handler cannot run pods with user namespaces of their own; "" if it can."""
        name = name or self._config.default_handler
        features = await self._features(name)
        why = features if isinstance(features, str) else self._unfit(self._found[name], features)
        return f"runtime handler {name!r} cannot run pods with user namespaces: {why}" if why else ""

    async def _handler(self, name: str) -> Handler:
        features = await self._features(name)
        if isinstance(features, str):
            return Handler(name, False, features)
        return Handler(
            name,
            True,
            recursive_read_only=features.recursive_read_only,
            user_namespaces=not self._unfit(self._found[name], features),
        )

    async def _features(self, name: str) -> Features | str:
        """What a handler can do, or why it cannot work."""
        name = name or self._config.default_handler
        async with self._probing:
            shim = self._found.get(name)
            if shim is None:
                return self._broken.get(name, "it is not configured")
            known = self._probed.get(name)
            if known is None or known[0] != shim:
                known = self._probed[name] = (shim, await self._probe(shim))
        if isinstance(known[1], str):
            self._found.pop(name, None)
            self._broken[name] = known[1]
        return known[1]

    async def _probe(self, shim: Shim) -> Features | str:
        try:
            told = await self._told(shim)
            if told is not None:
                return told
            return await runtime_features.probe(shim.program) if shim.calls_runc else Features()
        except (PodwrightError, OSError) as error:
            return str(error)

    async def _told(self, shim: Shim) -> Features | None:
        """By containerd, which asks the shim; older ones cannot, and not every shim answers."""
        wanted = types_pb2.RuntimeRequest(runtime_path=shim.runtime_type, options=shim.options)
        request = introspection_pb2.PluginInfoRequest(type=TASKS, id=TASKS_ID, options=any_of(wanted))
        try:
            answer = await self._containerd.ask(
                self._containerd.introspection.PluginInfo, request, f"the features of {shim.runtime_type}"
            )
        except PodwrightError:
            return None
        info = types_pb2.RuntimeInfo.FromString(answer.extra.value)
        if not info.features.value:
            return None
        return runtime_features.read(info.features.value, f"{info.name} {info.version.version}".strip())

    def _unfit(self, shim: Shim, features: Features) -> str:
        return runtime_features.no_user_namespaces(shim.kind, features, self._places.all_mapped)

    def _refused(self, shim: Shim) -> str:
        """What was said against it when it was asked; "" if nothing."""
        known = self._probed.get(shim.handler)
        return known[1] if known is not None and known[0] == shim and isinstance(known[1], str) else ""

    def _lacks(self, shim: Shim) -> str:
        """What the shim needs of containerd and this one has not; "" if nothing."""
        daemon = self._containerd
        if not daemon.has(SNAPSHOTTERS, shim.snapshotter):
            return f"snapshotter {shim.snapshotter!r}: {daemon.why_not(SNAPSHOTTERS, shim.snapshotter)}"
        if shim.sandboxer != SHIM:
            return ""
        for kind, id in ((CONTROLLER, SHIM), *((SERVICE, each) for each in SANDBOXES)):
            if not daemon.has(kind, id):
                return f'sandboxer "shim" needs {kind}.{id}: {daemon.why_not(kind, id)}'
        return ""


class Host:
    """The containerd itself."""

    def __init__(self, config: Config, containerd: Containerd, shims: Shims) -> None:
        self._config = config
        self._containerd = containerd
        self._shims = shims
        self.version = ""

    async def look(self, *, make: bool = True) -> None:
        """Ask containerd what it is, and find the handlers; with `make` see to its having our namespace.
        Unavailable when it does not answer, FailedPrecondition when it lacks what nothing here can do
        without."""
        self.version = await self._containerd.look(make=make)
        lost = [each for each in NEEDED if not self._containerd.has(SERVICE, each)]
        if lost:
            whys = "; ".join(f"{each}: {self._containerd.why_not(SERVICE, each)}" for each in lost)
            raise FailedPrecondition(f"containerd at {self._containerd.endpoint} lacks services: {whys}")
        self._shims.find(shim_path(socket_path(self._containerd.endpoint)))

    @property
    def info(self) -> dict[str, Json]:
        """For a verbose status."""
        return {
            "version": self.version,
            "endpoint": self._containerd.endpoint,
            "namespace": self._containerd.namespace,
            "snapshotters": sorted(self._containerd.plugins(SNAPSHOTTERS)),
            "services": sorted(self._containerd.plugins(SERVICE)),
        }


def shim_path(endpoint: Path) -> str:
    """Where the containerd that listens at `endpoint` looks for shims: its PATH, then its own directory. Our
    PATH where that cannot be seen. FailedPrecondition when it does not listen, or takes no connection now."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)  # one that is stopped has a full backlog some time
        try:
            client.connect(os.fspath(endpoint))
        except OSError as error:
            raise FailedPrecondition(f"containerd at {endpoint}: {silence(error)}") from error
        # Of a listening socket the kernel tells who made it listen (unix(7), SO_PEERCRED).
        told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process = Path("/proc") / str(struct.unpack("3i", told)[0])
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
        program = (process / "exe").readlink()
    except OSError:
        return os.environ.get("PATH", os.defpath)
    path = next((each for each in environment if each.startswith(b"PATH=")), b"PATH=")
    places = os.fsdecode(path.removeprefix(b"PATH=")).split(":")
    return ":".join(dict.fromkeys(each for each in (*places, str(program.parent)) if each))
