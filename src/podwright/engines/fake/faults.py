"""What goes wrong on a fake node: errors, delays, lost events, crashes; at calls and at the engine's steps.

A fault says where (`on`), for whom (`match`), what, and how often. Whoever comes to such a place asks
`Faults.meet` and does what the `Meeting` says: the engine at its steps, the server's front at calls and at
events.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from podwright import errors
from podwright.engines.fake import documents
from podwright.engines.fake.subject import Match, Subject
from podwright.engines.fake.values import Span
from podwright.errors import NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri

STEPS = (
    *("create_sandbox.namespaces", "create_sandbox.network", "create_sandbox.pause", "create_sandbox.ready"),
    *("undo_sandbox.network", "undo_sandbox.namespaces"),
    *("stop_sandbox.network", "stop_sandbox.namespaces", "remove_sandbox.files"),
    *("create_container.rootfs", "create_container.task", "undo_container.rootfs"),
    *("start_container.start", "start_container.started", "signal_container.signal"),
    *("create_container.restore", "checkpoint_container.dump", "checkpoint_container.archive"),
    *("remove_container.task", "remove_container.rootfs", "update_container.limits"),
    *("exec_sync.exec", "exec.start", "attach.attach", "port_forward.connect", "reopen_log.reopen"),
    *("pull_image.resolve", "pull_image.record", "remove_image.names"),
    *("sandbox_alive.look", "observe_container.look", "forget_others.network"),
)
"""Every step of the engine, as "operation.step"; a fault there strikes before what the step does."""
RPCS = tuple(
    method.name for service in cri.DESCRIPTOR.services_by_name.values() for method in service.methods
)
"""Every call of the CRI; those that podwright does not have pass here, too, before they are refused."""
EVENTS = tuple(f"event.{name}" for name in cri.ContainerEventType.DESCRIPTOR.values_by_name)
PLACES = (*RPCS, *STEPS, *EVENTS)

ERRORS: Mapping[str, Callable[[str], PodwrightError]] = {
    "Unknown": PodwrightError,
    **{
        kind.__name__: kind
        for kind in (
            errors.NotFound,
            errors.AlreadyExists,
            errors.FailedPrecondition,
            errors.Unavailable,
            errors.DeadlineExceeded,
            errors.ResourceExhausted,
            errors.Unimplemented,
            errors.RegistryUnavailable,
            errors.SignatureValidationFailed,
        )
    },
}
"""InvalidArgument, which has a field, is the one besides."""


class FaultError(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """An error that a client gets."""

    code: str
    """Unknown, NotFound, AlreadyExists, InvalidArgument, FailedPrecondition, Unavailable, DeadlineExceeded,
    ResourceExhausted, Unimplemented, RegistryUnavailable or SignatureValidationFailed. The kubelet finds the
    last two by the first word of the message; their status code is Unknown."""
    message: str = "a fault of the scenario"
    """Its words."""
    field: str = ""
    """Of InvalidArgument: the path of the field that is wrong, `config.metadata.name`."""

    def __post_init__(self) -> None:
        if self.code not in (*ERRORS, "InvalidArgument"):
            names = ", ".join(sorted((*ERRORS, "InvalidArgument")))
            raise ValueError(f"code: {self.code!r} is no error: wanted is one of {names}")
        if self.field and self.code != "InvalidArgument":
            raise ValueError(f"field: only InvalidArgument names a field, {self.code} does not")

    def make(self) -> PodwrightError:
        if self.code == "InvalidArgument":
            return errors.InvalidArgument(self.field, self.message)
        return ERRORS[self.code](self.message)


class Fault(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """Something that goes wrong at a place.

    Of several faults at one place the first that has an error or a crash prevails, and such ones behind it
    are not met at all: two with `count: 1` fail two calls, one after the other. Delays add up.
    """

    on: str
    """Where: the name of a call (`CreateContainer`), of a step of the engine (`create_container.rootfs`), or
    of an event (`event.CONTAINER_STARTED_EVENT`); a pattern with `*` fits several. See "Places" for all."""
    match: Match = Match()
    """For whom."""
    error: FaultError | None = None
    """It fails. A call fails before anything is done, a step before its act."""
    latency: Span | None = None
    """It takes so much longer; the error, if there is one, comes after it."""
    skip: int = 0
    """The first so many times pass unharmed."""
    probability: float = 1.0
    """How likely it strikes each time, 0 to 1; passed over times do not count as `count`."""
    count: int = 0
    """It strikes so many times and never again; 0: always."""
    lose: bool = False
    """The event is told nobody."""
    crash: Literal["before", "after"] | None = None
    """The server is gone as after kill -9: before the call or act, or when it is done but not answered."""
    downtime: Span = Span()
    """So long after its crash the server starts again."""

    def __post_init__(self) -> None:
        places = [place for place in PLACES if fnmatchcase(place, self.on)]
        if not places:
            near = get_close_matches(self.on, PLACES, 1)
            raise ValueError(
                f"on: no call, step or event is called {self.on!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if self.error is None and self.latency is None and not self.lose and self.crash is None:
            raise ValueError("a fault needs one of error, latency, lose or crash")
        if self.error is not None and self.crash is not None:
            raise ValueError("crash: a server that is gone answers with no error; leave one of the two out")
        if self.lose and not set(places) & set(EVENTS):
            raise ValueError(f"lose: {self.on!r} fits no event, only events are lost")
        for name, value in (("error", self.error), ("latency", self.latency)):
            if value is not None and set(places) <= set(EVENTS):
                raise ValueError(f"{name}: {self.on!r} fits only events, which get lost or crash the server")
        if self.downtime != Span() and self.crash is None:
            raise ValueError("downtime: follows a crash, and this fault has none")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: {self.probability!r} is not above 0 and at most 1")
        for name, number in (("skip", self.skip), ("count", self.count)):
            if number < 0:
                raise ValueError(f"{name}: {number} is negative")


@dataclass(frozen=True, slots=True)
class Meeting:
    """What happens here and now."""

    latency: float = 0.0
    """Seconds to wait first, by the world's clock."""
    error: PodwrightError | None = None
    lose: bool = False
    crash: Fault | None = None


@dataclass(eq=False, slots=True)
class ActiveFault:
    """A fault that can still strike, and how it went so far."""

    id: int
    fault: Fault
    scripted: bool = False
    """It came with the scenario, and goes with it."""
    met: int = 0
    """How often it fitted."""
    struck: int = 0


_NOTHING = Meeting()


class Faults:
    """The faults of a world: those of its scenario first, then those added since, in order."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._faults: list[ActiveFault] = []
        self._script: Sequence[Fault] = ()
        self._by_place: dict[str, list[ActiveFault]] = {}
        self._ids = 0
        self.some = False
        """Whether there is any: whoever is in a hurry looks here first."""

    def add(self, fault: Fault | Mapping[str, Any]) -> int:
        """The fault's id for `remove`. Times may be as in a scenario, "2s"; InvalidArgument."""
        # What Python makes of these classes nobody has checked.
        fault = documents.convert(documents.to_tree(fault), Fault, "fault")
        return self._add(fault, len(self._faults), scripted=False).id

    def remove(self, id: int) -> None:
        """NotFound when no active fault has this id."""
        for active in self._faults:
            if active.id == id:
                self._drop(active)
                return
        raise NotFound(f"no active fault has the id {id}")

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self._faults.clear()
        self._changed()

    def active(self) -> list[ActiveFault]:
        """Those that can still strike, in the order in which they are met."""
        return list(self._faults)

    def follow(self, script: Sequence[Fault]) -> None:
        """Replace the faults of the former scenario. Those that are in the new one, too, go on as they are:
        with their counts, and gone if they were spent or removed."""
        kept: list[ActiveFault] = []
        former, known = [each for each in self._faults if each.scripted], list(self._script)
        for fault in script:
            active = next((each for each in former if each.fault == fault), None)
            if active is not None:
                former.remove(active)
                known.remove(fault)
                kept.append(active)
            elif fault in known:
                known.remove(fault)
            else:
                self._ids += 1
                kept.append(ActiveFault(self._ids, fault, scripted=True))
        self._script = tuple(script)
        self._faults = kept + [each for each in self._faults if not each.scripted]
        self._changed()

    def meet(self, on: str, subject: Subject) -> Meeting:
        """What strikes at the place `on` (a call, "operation.step" or "event.NAME") for `subject` now."""
        if not self.some:
            return _NOTHING
        here = self._by_place.get(on)
        if here is None:
            here = self._by_place[on] = [each for each in self._faults if fnmatchcase(on, each.fault.on)]
        if not here:
            return _NOTHING
        latency, lose, fatal = 0.0, False, None
        for active in tuple(here):
            fault = active.fault
            deadly = fault.error is not None or fault.crash is not None
            if (deadly and fatal is not None) or not self._strikes(active, subject):
                continue
            if fault.latency is not None:
                latency += fault.latency.draw(self._chance)
            lose = lose or fault.lose
            fatal = fault if deadly else fatal
        if fatal is None:
            return Meeting(latency, lose=lose) if latency or lose else _NOTHING
        error = fatal.error.make() if fatal.error is not None else None
        return Meeting(latency, error, lose, fatal if fatal.crash is not None else None)

    def _strikes(self, active: ActiveFault, subject: Subject) -> bool:
        fault = active.fault
        if not fault.match.fits(subject):
            return False
        active.met += 1
        if active.met <= fault.skip:
            return False
        if fault.probability < 1 and self._chance.random() >= fault.probability:
            return False
        active.struck += 1
        if active.struck == fault.count:
            self._drop(active)
        return True

    def _add(self, fault: Fault, position: int, *, scripted: bool) -> ActiveFault:
        self._ids += 1
        active = ActiveFault(self._ids, fault, scripted)
        self._faults.insert(position, active)
        self._changed()
        return active

    def _drop(self, active: ActiveFault) -> None:
        self._faults.remove(active)
        self._changed()

    def _changed(self) -> None:
        self._by_place.clear()
        self.some = bool(self._faults)
