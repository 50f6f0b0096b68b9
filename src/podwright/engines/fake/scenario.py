"""A scenario: what happens on a fake node, as a YAML document or a Python value says it.

The first script that matches a container tells what its program does; every fault that matches a call or a
step happens there. Unknown keys are refused with their path.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

import msgspec

from podwright.engines.fake.faults import Fault
from podwright.engines.fake.subject import Match as Match
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.values import Span
from podwright.errors import InvalidArgument


class ExitScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How a container's program ends by itself."""

    after: Span = msgspec.field(default_factory=Span)
    code: int = 0
    oom: bool = False
    times: int = 0
    """Only the first so many starts of a container of this name in this pod; 0: every one."""


class LogScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Lines a container writes by itself, whatever its program is."""

    text: str
    """`{n}` is the number of the line, from 0."""
    stream: Literal["stdout", "stderr"] = "stdout"
    after: Span = msgspec.field(default_factory=Span)
    every: Span | None = None
    """Again and again, so often; None: once."""
    count: int = 0
    """At most so many lines; 0: no end (with `every`)."""


class ExecScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The answer to an exec whose command fits."""

    command: str = "*"
    """A pattern for the words of the command, joined with blanks."""
    stdout: str = ""
    stderr: str = ""
    code: int = 0
    after: Span = msgspec.field(default_factory=Span)
    times: int = 0
    """Only the first so many; 0: every one."""


class ContainerScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    match: Match = Match()
    program: list[str] | None = None
    """Runs instead of the container's own command; see `programs`."""
    exit: ExitScript | None = None
    logs: list[LogScript] = []
    exec: list[ExecScript] = []
    ignore: list[str] = []
    """Signals it takes no notice of: [SIGTERM]."""
    stopping: Span = msgspec.field(default_factory=Span)
    """How long it takes to end after a signal that ends it."""
    start_error: str = ""
    """Its start fails with these words."""


class HandlerScript(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    error: str = ""
    """Why it cannot work; empty: it works."""
    recursive_read_only: bool = True
    user_namespaces: bool = True


class AddressScript(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True
):
    """Where the pods' addresses come from, one of each family."""

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


class Scenario(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    seed: int = 0
    """Of ids, distributions and probabilities; 0: different each time."""
    handlers: dict[str, HandlerScript] = msgspec.field(default_factory=lambda: {"fake": HandlerScript()})
    default_handler: str = "fake"
    runtime_error: str = ""
    """Why the node's runtime is not ready."""
    network_error: str = ""
    """Why its network is not ready."""
    addresses: AddressScript = AddressScript()
    """Of the pods."""
    faults: list[Fault] = []
    containers: list[ContainerScript] = []

    def script(self, subject: Subject) -> ContainerScript:
        for script in self.containers:
            if script.match.fits(subject):
                return script
        return _NOTHING


_NOTHING = ContainerScript()


def parse(tree: Any, where: str = "scenario") -> Scenario:
    """The scenario that `tree` (what YAML or JSON gives) says. InvalidArgument names what is wrong."""
    try:
        return msgspec.convert(tree if tree is not None else {}, Scenario, dec_hook=_special)
    except msgspec.ValidationError as error:
        raise InvalidArgument(where, str(error)) from error


def load(path: Path) -> Scenario:
    import yaml

    try:
        return parse(yaml.safe_load(path.read_bytes()), str(path))
    except OSError as error:
        raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InvalidArgument(str(path), f"is not YAML: {error}") from error


def _special(type: type, value: Any) -> Any:
    if type is Span:
        return Span.parse(value)
    raise NotImplementedError(type)
