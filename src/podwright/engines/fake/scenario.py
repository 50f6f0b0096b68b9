"""A scenario: what happens on a fake node, as a YAML document or a Python value says it.

These classes are the document's schema and its reference: `docs/scenario.md` is made of their words by
`tools/scenario_reference.py`. Unknown keys are refused, every error names the path to what is wrong.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from podwright.clock import SYSTEM, Clock, VirtualClock
from podwright.engines.fake import documents
from podwright.engines.fake.curves import Curve
from podwright.engines.fake.faults import Fault
from podwright.engines.fake.registry import ImagesScript
from podwright.engines.fake.subject import Match as Match
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.values import Span
from podwright.errors import InvalidArgument
from podwright.spec.signals import parse_signal

Count = Annotated[int, Meta(ge=0)]
Code = Annotated[int, Meta(ge=0, le=255)]


class _Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """What the parts of a scenario have in common."""


class ExitScript(_Part, frozen=True):
    """How a container's program ends by itself."""

    after: Span = Span()
    """So long after its start."""
    code: Code = 0
    """Its exit code, 0 to 255; with `oom` 0 means 137."""
    oom: bool = False
    """The kernel killed it because its memory was used up: the reason is OOMKilled."""
    times: Count = 0
    """Only the first so many starts of a container of this name in this pod end so; 0: every one."""


class LogScript(_Part, frozen=True):
    """Lines that a container writes by itself, whatever its program is."""

    text: str
    """`{n}` in it is the number of the line, from 0."""
    stream: Literal["stdout", "stderr"] = "stdout"
    """Where it writes them."""
    after: Span = Span()
    """So long after the start, for the first one."""
    every: Span | None = None
    """Again and again after so long; not given: once."""
    count: Count = 0
    """At most so many lines, with `every`; 0: no end."""

    def __post_init__(self) -> None:
        if self.count and self.every is None:
            raise ValueError(f"count: {self.count} lines need `every`; without it there is one")


class ExecScript(_Part, frozen=True):
    """The answer to an exec whose command fits."""

    command: str = "*"
    """A pattern for the words of the command, joined with blanks."""
    stdout: str = ""
    """What it writes there."""
    stderr: str = ""
    """What it writes there."""
    code: Code = 0
    """Its exit code, 0 to 255."""
    after: Span = Span()
    """How long it takes."""
    times: Count = 0
    """Only the first so many; 0: every one."""


class UsageScript(_Part, frozen=True):
    """What a container uses while it runs. What is not given is small, and a little different for each."""

    cpu: Curve | None = None
    """Cores in use. The CPU time is the area below it."""
    memory: Curve | None = None
    """Working set in bytes; the container's limit cuts it off, without killing anything."""
    swap: Curve | None = None
    """Bytes."""
    disk: Curve | None = None
    """Bytes in the writable layer."""
    inodes: Curve | None = None
    """Files in the writable layer."""
    processes: Curve | None = None
    """How many, rounded; 1 if not given."""
    page_faults: Curve | None = None
    """In a second."""
    major_page_faults: Curve | None = None
    """In a second."""
    cpu_pressure: Curve | None = None
    """Share of the time, 0 to 1, in which its processes wait for a CPU; `some` and `full` are the same."""
    memory_pressure: Curve | None = None
    """The same for memory."""
    io_pressure: Curve | None = None
    """The same for disks."""

    def __post_init__(self) -> None:
        for name in ("cpu_pressure", "memory_pressure", "io_pressure"):
            curve: Curve | None = getattr(self, name)
            if curve is not None and curve.peak > 1:
                raise ValueError(f"{name}: it is a share of the time, 0 to 1, and rises to {curve.peak:g}")


class ContainerScript(_Part, frozen=True):
    """What the program of a container does. The first script that fits a container counts."""

    match: Match = Match()
    """Which containers."""
    program: list[str] | None = None
    """Runs instead of the container's own command; see "Programs"."""
    exit: ExitScript | None = None
    """It ends by itself; not given: when its program does."""
    logs: list[LogScript] = []
    """What it writes besides the output of its program."""
    exec: list[ExecScript] = []
    """The first that fits answers an Exec or ExecSync; where none does, the command is run as a program."""
    ignore: list[str] = []
    """Signals it takes no notice of: `[SIGTERM]`."""
    stopping: Span = Span()
    """How long it takes to end after a signal that ends it; SIGKILL ends it at once."""
    start_error: str = ""
    """Its start fails with these words."""
    stats: UsageScript | None = None
    """What it uses."""

    def __post_init__(self) -> None:
        for name in self.ignore:
            try:
                parse_signal(name, "ignore")
            except InvalidArgument as error:
                raise ValueError(str(error)) from error


class NetworkUsageScript(_Part, frozen=True):
    """The traffic of a pod at its interface eth0. What is not given is small, and different for each."""

    received: Curve | None = None
    """Bytes in a second."""
    sent: Curve | None = None
    """Bytes in a second."""
    receive_errors: Curve | None = None
    """In a second; none if not given."""
    send_errors: Curve | None = None
    """In a second; none if not given."""


class PortScript(_Part, frozen=True):
    """Something that listens on a port of a pod, for port-forwards."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    """Its number."""
    answer: str = ""
    """It is written to everybody who connects. Without `echo` the pod's side ends then; without both it
    takes what comes and says nothing."""
    echo: bool = False
    """What comes goes back, after the `answer`, until the client ends."""
    after: Span = Span()
    """So long after the connection the answer comes."""


class SandboxScript(_Part, frozen=True):
    """What happens to a pod's sandbox. The first script that fits a pod counts."""

    match: Match = Match()
    """Which pods; labels are the sandbox's, `container` and `image` fit none."""
    latency: Span = Span()
    """How long its creation takes, on top of what faults say."""
    lost: Span | None = None
    """So long after it became ready it breaks, as when its pause process dies: it is NOTREADY from then on.
    Not given: it stays until it is stopped."""
    ports: list[PortScript] = []
    """What listens in it, besides its programs; these count more."""
    network: NetworkUsageScript | None = None
    """Its traffic. What else a pod uses is the sum of its containers."""


class HandlerScript(_Part, frozen=True):
    """A runtime handler, as Status reports it."""

    error: str = ""
    """Why it cannot work, pods that want it fail with these words; empty: it works."""
    recursive_read_only: bool = True
    """It can make mounts read-only with everything below them."""
    user_namespaces: bool = True
    """It can run pods in user namespaces."""


class AddressScript(_Part, frozen=True):
    """Where the pods' addresses come from: one of each family, IPv4 first."""

    ipv4: str = "10.88.0.0/14"
    """A range; empty: pods have no IPv4 address."""
    ipv6: str = ""
    """A range; empty: pods have no IPv6 address."""

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("one of ipv4 and ipv6 is needed: a pod without host network has an address")
        for name, text, kind in (("ipv4", self.ipv4, IPv4Network), ("ipv6", self.ipv6, IPv6Network)):
            if text:
                try:
                    kind(text)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error

    @property
    def ranges(self) -> tuple[str, ...]:
        return tuple(each for each in (self.ipv4, self.ipv6) if each)


class Scenario(_Part, frozen=True):
    """The whole document. It may be replaced while the node runs; each key says what then takes effect
    when."""

    seed: Count = 0
    """Of ids, distributions and probabilities: the same calls in the same order give the same node. 0:
    different each time, and ids that are safe to share. A new seed starts all chances anew."""
    clock: Literal["system", "virtual"] = "system"
    """The machine's time, or one that stands still until somebody advances it. Holds from the start of the
    node; a test that brings its own clock overrules it."""
    start: Annotated[datetime.datetime, Meta(tz=True)] = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    """When a virtual clock begins, with a time zone: `2025-01-01T00:00:00Z`."""
    handlers: dict[str, HandlerScript] = msgspec.field(default_factory=lambda: {"fake": HandlerScript()})
    """The runtime handlers by name. A change holds from the next call."""
    default_handler: str = "fake"
    """The handler of pods that ask for none; one of `handlers`."""
    runtime_error: str = ""
    """Why the node's runtime is not ready, as Status tells; empty: it is ready. A change holds at once."""
    network_error: str = ""
    """Why its network is not ready; pods without host network fail with these words. A change holds at
    once."""
    addresses: AddressScript = AddressScript()
    """Of the pods. A change holds for new pods; others keep what they have."""
    images: ImagesScript = ImagesScript()
    """A change holds for the next pull; a transfer under way ends as it began. Images that are to be
    `present` are put there when this part changes, even if they had been removed; those here already stay."""
    unknown_programs: Literal["run", "fail"] = "run"
    """A container whose program is no built-in runs until it is signalled, or fails to start."""
    pods: list[SandboxScript] = []
    """A change holds for pods that are created from then on; that of their ports for all, at once."""
    containers: list[ContainerScript] = []
    """What a program does is settled when the container starts, its usage when it is created; the answers to
    exec change at once."""
    faults: list[Fault] = []
    """A change holds at once. A fault that stays as it is keeps its counts, and one that is spent does not
    come back."""

    def __post_init__(self) -> None:
        if self.default_handler not in self.handlers:
            names = ", ".join(sorted(self.handlers)) or "none"
            raise ValueError(f"default_handler: {self.default_handler!r} is none of the handlers: {names}")

    def script(self, subject: Subject) -> ContainerScript:
        """The container script that counts for `subject`."""
        for script in self.containers:
            if script.match.fits(subject):
                return script
        return _ORDINARY

    def pod_script(self, subject: Subject) -> SandboxScript:
        """The pod script that counts for `subject`."""
        for script in self.pods:
            if script.match.fits(subject):
                return script
        return _ORDINARY_POD

    def make_clock(self) -> Clock:
        """A clock as the scenario wants it."""
        return (
            SYSTEM if self.clock == "system" else VirtualClock(round(self.start.timestamp()) * 1_000_000_000)
        )


_ORDINARY = ContainerScript()
_ORDINARY_POD = SandboxScript()


def parse(tree: Any, where: str = "scenario") -> Scenario:
    """The scenario that `tree` (what YAML or JSON gives) says. InvalidArgument with the path to what is
    wrong."""
    return documents.convert(tree if tree is not None else {}, Scenario, where)


def parse_yaml(text: str | bytes, where: str = "scenario") -> Scenario:
    """The scenario of a YAML document."""
    return parse(documents.read_yaml(text, where), where)


def load(path: Path) -> Scenario:
    """The scenario of the YAML file at `path`."""
    try:
        return parse_yaml(path.read_bytes(), f"{path}: scenario")
    except OSError as error:
        raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error


def apply(scenario: Scenario, change: Mapping[str, Any], where: str = "change") -> Scenario:
    """`scenario` with the parts that `change` (a tree like a scenario's) has in the place of its own, each as
    a whole; null brings a part back to its default. InvalidArgument with the path to what is wrong."""
    tree = {key: value for key, value in documents.to_tree(scenario).items() if key not in change}
    return parse(tree | {key: value for key, value in change.items() if value is not None}, where)


def to_tree(scenario: Scenario) -> dict[str, Any]:
    """What `parse` makes an equal scenario of, fit for JSON; defaults are left out."""
    tree: dict[str, Any] = documents.to_tree(scenario)
    return tree


def to_yaml(scenario: Scenario) -> str:
    return documents.write_yaml(to_tree(scenario))
