"""The seam: what core asks of whatever runs the containers.

Core keeps the CRI's rules (names, ids, states, roll-back, stop escalation, events); an engine makes and
unmakes things. An engine never calls core: it returns the values below, raises the errors of
`podwright.errors`, and yields exits. Every engine passes the same behaviour suite.

How an engine must behave so that a crash at any instruction loses nothing:

- Whatever it makes for an object is found again from the object's id (and `facts`, which core stores)
  alone. Core has written the record before it calls `create_*`.
- `create_*` registers the undoing of each step on `undo` before or right after the step; core unwinds it
  when the call fails or is cancelled, detached from the caller's deadline.
- `stop_*` and `remove_*` are idempotent and cope with objects that are half made or half gone: after a
  crash in the middle of anything core calls them with `facts` possibly empty.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from podwright.checkpoints.layout import Checkpoint
from podwright.clock import Clock
from podwright.engines.streams import Connection, Streams
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

Json = Any
"""A JSON value an engine wants kept: None, bool, int, float, str, and lists and dicts of them."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A runtime handler, as Status reports it."""

    name: str
    available: bool
    reason: str = ""
    """Why it cannot work on this host; empty when it can."""
    recursive_read_only: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True)
class EngineStatus:
    handlers: tuple[Handler, ...]
    default_handler: str
    runtime_error: str = ""
    """Why no pod can run; empty when ready."""
    network_error: str = ""
    """Why pods get no network; empty when ready."""
    info: Mapping[str, Json] = field(default_factory=dict)
    """For a verbose Status: each value becomes JSON text."""
    config: Mapping[str, Json] | None = None
    """What an engine goes by that has a configuration of its own; None: by the house's."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the engine's store."""

    id: str
    """Digest of the image's configuration: "sha256:<64 hex>". The same everywhere."""
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size: int
    """Bytes, never 0."""
    config: Mapping[str, Json]
    """The `config` section of the OCI image configuration (Env, Entrypoint, Cmd, User, …)."""
    pinned: bool = False
    artifact: bool = False
    """It is no container image, but files, to be mounted (image-spec, artifacts guidance)."""
    checkpoint: bool = False
    """It holds a checkpoint: containers made of it are restored."""
    built: Mapping[str, Json] = field(default_factory=dict)
    """What its configuration has beside `config`, where it is known: architecture, os, variant, rootfs."""

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    @property
    def stop_signal(self) -> str:
        return str(self.config.get("StopSignal") or "")


@dataclass(frozen=True, slots=True)
class FilesystemUse:
    mountpoint: str
    used_bytes: int
    inodes_used: int
    others: Sequence[FilesystemUse] = ()
    """Further places that hold images: this one is where they are pulled to."""


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What an engine made for a sandbox; stored with the record and handed back in every later call."""

    ips: tuple[str, ...] = ()
    """The pod's addresses, the preferred one first; empty with host network."""
    pid: int = 0
    """Host pid of the process that holds the pod together (a pause process), 0 when there is none."""
    own: Mapping[str, Json] = field(default_factory=dict)
    """The engine's own notes."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    id: str
    """64 lower-case hex digits."""
    name: str
    """Unique: pod, namespace, uid and attempt joined by "_"."""
    config: cri.PodSandboxConfig
    handler: str
    """As requested; "" is the default handler."""
    facts: SandboxFacts = SandboxFacts()


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """What an engine made for a container; stored with the record and handed back in every later call."""

    pid: int = 0
    """Host pid of the container's first process; 0 before create has ended."""
    uid: int = 0
    gid: int = 0
    supplemental_groups: tuple[int, ...] = ()
    own: Mapping[str, Json] = field(default_factory=dict)
    """The engine's own notes."""


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    name: str
    sandbox: Sandbox
    config: cri.ContainerConfig
    image: Image
    log_path: str
    """Absolute path of the CRI log, or "": output is discarded."""
    target: Container | None = None
    """The container whose PID namespace is joined (NamespaceMode TARGET)."""
    facts: ContainerFacts = ContainerFacts()
    checkpoint: Checkpoint | None = None
    """What it is restored from; given to its creation only: the engine keeps what a start needs."""


class Presence(enum.Enum):
    """What is really there of a container."""

    MISSING = "missing"
    """Nothing, or not enough to run: for a record that says created or running, the task has vanished."""
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Exit:
    """A container has ended, its log is flushed; or what holds a sandbox together has."""

    id: str
    code: int
    """0..255; 128 + signal when a signal killed it."""
    finished_at: int
    """Nanoseconds since the epoch, from the supervisor, not from when it was noticed."""
    oom_killed: bool = False
    sandbox: bool = False
    refusal: str = ""
    """Why it never ran: what is left of a start that failed while nobody was there to hear of it."""


@dataclass(frozen=True, slots=True)
class Observation:
    presence: Presence
    exit: Exit | None = None
    """Set when presence is EXITED."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    stdout: bytes
    stderr: bytes
    code: int


class Figure(NamedTuple):
    """One value of a metric; what metrics there are is core's (core/metric_table.py)."""

    name: str
    value: int
    labels: tuple[str, ...] = ()
    """Values of the labels that this metric has beyond those of every one, in their order."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an engine would make of a request, and why each part of it is so."""

    document: Mapping[str, Json]
    origins: Mapping[str, str]
    """Place in the document -> why it is so, in the words of `spec.draft`; `spec.places` walks both."""
    warnings: tuple[str, ...] = ()
    """What is asked for and not given, and what cannot be known before it is made."""
    what: str = "OCI runtime spec"
    """What the document is."""
    spec: Explanation | None = None
    """The same in the words of a runtime spec, where the document is something else: for comparing it with
    those of other engines. Its origins name every place that it speaks of."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something on the host that belongs to this engine's roots and to no record."""

    kind: str
    """"mount", "netns", "process", "cgroup", "directory", "cni", "image-…": for people."""
    name: str
    """Path, pid or id."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An AuthConfig that passed the host rule; None instead of it means anonymous, and so does `withheld`."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    withheld: str = ""
    """The host that the call's credentials are for when the image is elsewhere: they are not here then."""


class ImageService(Protocol):
    """Images of an engine. References are taken as clients write them: names, digests, ids, id prefixes."""

    async def list(self) -> Sequence[Image]: ...

    async def find(self, reference: str) -> Image | None:
        """The image `reference` names, or None. InvalidArgument when it cannot be a reference at all."""

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        """Fetch and unpack; returns when the image can be run. Identical pulls share one transfer.

        Raises InvalidArgument, NotFound (the registry has no such image), RegistryUnavailable,
        SignatureValidationFailed.
        """

    def watch_pulls(self, image: str = "") -> AsyncIterator[own.PullProgress]:
        """How far pulls are: those under way, and from this call on each change; only those of `image` (a
        name in full) when it is given. Who is slow misses states, never the last one of a pull."""

    async def remove(self, reference: str) -> None:
        """Remove every reference of the image (semantics of containerd); an unknown one is fine.

        Raises FailedPrecondition while a container uses it only if its files would vanish.
        """

    async def filesystem_use(self) -> FilesystemUse: ...

    async def explain_blob(self, digest: str) -> own.ExplainBlobResponse:
        """What `digest` is here (a blob, a layer, an image, or the beginning of one's digest, or a name), and
        what keeps it. NotFound when it is nothing, Unimplemented by an engine without blobs."""

    async def prune(self, *, dry_run: bool, untagged_only: bool) -> own.PruneImagesResponse:
        """Remove the images that no container uses and that are not pinned (of them those without a tag), and
        what interrupted pulls have left; or only say which."""

    async def import_image(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        """Make images of what is at an absolute path: a root directory or a tar of one, or one or more images
        in an OCI layout, an OCI archive or a Docker archive.

        `reference` names the image; "" leaves what is there its own names. `config` is the image's `config`
        section for a root, and is refused otherwise. InvalidArgument, NotFound, Unimplemented.
        """

    async def export_image(self, reference: str, target: str) -> tuple[Image, int]:
        """Write an image to "oci:PATH", "oci-archive:PATH" or "docker-archive:PATH"; it, and how many bytes
        were written. NotFound, FailedPrecondition when not all of its blobs are here."""


class Engine(Protocol):
    """One way to run pods. All methods may be called concurrently for different objects."""

    name: str
    """"oci", "containerd", "docker", "fake"."""
    runtime_version: str
    cgroup_driver: str
    """"cgroupfs" or "systemd"."""

    @property
    def clock(self) -> Clock:
        """The time its pods live by; core stamps and waits by it, too."""

    @property
    def images(self) -> ImageService: ...

    def new_id(self) -> str:
        """An id for a sandbox or container to come: 64 lower-case hex digits, never given before."""

    async def open(self) -> None:
        """Prepare directories and look at the host. FailedPrecondition when this host cannot do it at all."""

    async def close(self) -> None:
        """Let go; containers keep running."""

    async def status(self) -> EngineStatus: ...

    async def use_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        """Pods to come get their addresses from these networks, as far as that is the engine's to decide.
        FailedPrecondition when its configuration for that cannot be used; nothing has changed then."""

    def check_handler(self, name: str) -> None:
        """InvalidArgument("runtime_handler", …) for an unknown handler, FailedPrecondition with the reason
        for one that cannot work here."""

    # Sandboxes

    async def create_sandbox(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        """Make it ready for containers: its network, and whatever holds it together."""

    async def stop_sandbox(self, sandbox: Sandbox) -> None:
        """Let go of its network and of whatever holds it together. Its containers have ended before."""

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Remove everything that is left; it was stopped before."""

    async def sandbox_alive(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox recorded as ready still can take containers (after a restart or reboot)."""

    async def sandbox_info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        """For a verbose PodSandboxStatus: whatever helps to find out what is wrong with it."""

    # Containers

    async def create_container(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        """Everything but the start of its program."""

    async def start_container(self, container: Container) -> ContainerFacts | None:
        """Start its program, or restore it; other facts than it had, None when they are the same. On an error
        the container cannot be started again; core marks it exited.

        Its exit may be told before this returns. It may be signalled meanwhile, and once it has ended core
        cancels a start that goes on.
        """

    async def signal_container(self, container: Container, signal: int) -> None:
        """Send `signal` (a number of signal(7)) to its first process; SIGKILL goes to all of its
        processes, also when its program has not been started. Fine when it has ended. Like stopping,
        observing and removing it works though the handler has left the configuration."""

    async def remove_container(self, container: Container) -> None:
        """Remove everything of an ended, created or half-made container, the log file excepted."""

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        """Raise what `update_container` would, as far as that can be known before anything is changed:
        InvalidArgument for values that cannot be, FailedPrecondition, Unimplemented."""

    async def update_container(
        self,
        container: Container,
        resources: cri.LinuxContainerResources,
        former: cri.LinuxContainerResources | None = None,
    ) -> None:
        """Apply `resources` (already merged: the values that shall hold) to a container that is created,
        running or has ended; it may end meanwhile. `former` may be in force: what it sets and `resources`
        does not is unset. After an error some values may have been changed."""

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        """Run `argv` inside with the container's environment, user and directory; keep at most `limit`
        bytes of each stream. DeadlineExceeded after `timeout` seconds, the whole process group killed."""

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        """Run `argv` inside as `exec_sync` does, connected with `streams`; its exit code, 0..255, once it has
        ended and its output is with the client. Output that others still hold open does not delay that for
        long; the container's end ends it.

        A command that cannot be found has 127 for a code, one that cannot be executed 126, and says so on its
        standard error. When cancelled, or when a stream fails, it is hung up: its streams end, it gets SIGHUP
        and, if it stays, SIGKILL. Raises what `exec_sync` raises.
        """

    async def attach(self, container: Container, streams: Streams) -> None:
        """Connect `streams` with the first process of a running container; several at once are fine.

        What it writes from now on goes to each of them, as it goes to the log; whoever reads too slowly
        slows the container down. What the client sends is dropped unless `ContainerConfig.stdin`; with
        `stdin_once` the container's stdin ends with the first client that had it. Returns when the container
        has ended, or when all of `streams` have; when cancelled the container goes on.
        Raises FailedPrecondition when it does not run.
        """

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        """Connect `connection` with what listens on localhost inside the pod, IPv4 first; returns when both
        directions have ended. When cancelled the listener's connection is reset.

        Raises InvalidArgument for an impossible port, FailedPrecondition when nothing listens there or the
        pod cannot be reached.
        """

    async def reopen_log(self, container: Container) -> None: ...

    async def checkpoint_container(
        self, container: Container, status: cri.ContainerStatus, location: Path
    ) -> None:
        """Write what runs in a running container to the archive `location` (podwright/checkpoints), whole or
        not at all; it goes on as if nothing had been. `status` is written down with it.

        Raises FailedPrecondition with the reason when that cannot be done with it or on this host,
        ResourceExhausted when the disk is full. When cancelled nothing is left, perhaps a little later.
        """

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        """What the archive at an absolute path, or the image with an id, is a checkpoint of. NotFound,
        InvalidArgument when it is none."""

    async def container_stats(self, containers: Sequence[Container]) -> Mapping[str, cri.ContainerStats]:
        """What each uses, by id; those that have ended are left out. Core fills in the attributes."""

    async def sandbox_stats(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, cri.LinuxPodSandboxStats]:
        """What each pod uses as a whole, by id, without its containers: core fills those in."""

    async def container_figures(self, containers: Sequence[Container]) -> Mapping[str, Sequence[Figure]]:
        """What is measured of each for metrics, by id; those that have ended are left out."""

    async def sandbox_figures(self, sandboxes: Sequence[Sandbox]) -> Mapping[str, Sequence[Figure]]:
        """What is measured of each pod as a whole, its network above all, by id."""

    async def observe_container(self, container: Container) -> Observation:
        """What is really there. From now on its exit is told."""

    async def container_info(self, container: Container) -> Mapping[str, Json]:
        """For a verbose ContainerStatus: pid, runtimeSpec, bundle, …"""

    # Explaining: nothing is created on the host, not even a directory

    async def explain_container(self, container: Container) -> Explanation:
        """What `create_container` would make. Raises what it would raise for a request that cannot be."""

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        """What `create_sandbox` would run to hold the pod; None when it needs no process."""

    def exits(self) -> AsyncIterator[Exit]:
        """Exits from now on, of containers and of what holds sandboxes together. One consumer. An exit may be
        yielded again; core ignores repetitions. An engine that loses the source of its exits raises: core
        asks for them again, and looks for itself what it may have missed."""

    # Repair

    async def forget_others(self, sandboxes: set[str]) -> None:
        """Recovery has ended and only `sandboxes` exist: let go what services outside podwright (network
        plugins) hold for others."""

    async def orphans(self, sandboxes: set[str], containers: set[str]) -> Sequence[Orphan]:
        """What is on the host for ids that are in neither set."""

    async def remove_orphan(self, orphan: Orphan) -> None: ...


class Planner(Protocol):
    """The part of an engine that explains, without opening the engine: others may have its state."""

    name: str

    def check_handler(self, name: str) -> None:
        """InvalidArgument("runtime_handler", …) for an unknown handler."""

    async def recursive_read_only(self, handler: str) -> bool:
        """Whether the handler ("" is the default one) can make mounts read-only all the way down."""

    def runs_here(self, handler: str) -> bool:
        """Whether the processes of the handler's containers are processes of this host's kernel."""

    async def find_image(self, reference: str) -> Image | None:
        """The image as far as its store can be read by this user."""

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        """As `Engine.explain_container`; mounts of host paths in `to_come` will find them there."""

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None: ...
