"""How running pods look below their output: a rule with each pod's phase and conditions, a line for each
container. Pure: states in, lines out.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from podwright.cli.output import painted, span

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus
    from podwright.kube.state.waiting import Waiting

GAP, INDENT = 3, 2
MIN_NOTE = 14
"""Columns below which there is no use in telling why."""
MIN_NAME = 8
SHARE = 0.5
"""How much of the terminal's height may be taken: the rest is for what the containers write."""
PLAIN = str.maketrans({"─": "-", "·": "|", "…": "~"})
"""For terminals that have no UTF-8."""

Tone = Literal["", "good", "busy", "bad", "dim"]
COLOURS: dict[Tone, str] = {"": "", "good": "32", "busy": "33", "bad": "31", "dim": "2"}
BEGINNING = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Row:
    """One container."""

    name: str
    state: str
    tone: Tone = ""
    ready: bool | None = None
    """None where the question does not arise."""
    restarts: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """One pod."""

    name: str
    phase: str
    tone: Tone = ""
    conditions: tuple[tuple[str, Tone], ...] = ()
    address: str = ""
    age: str = ""
    problem: str = ""
    """What keeps the pod as a whole."""
    rows: tuple[Row, ...] = ()

    @property
    def well(self) -> bool:
        return not self.problem and all(one.tone in ("good", "dim") for one in self.rows)


def shown(
    manifest: Manifest,
    status: PodStatus,
    now: int,
    *,
    waiting: Mapping[str, Waiting],
    again: Mapping[str, float],
    probes: Mapping[str, str],
    problem: str = "",
    deleting: bool = False,
) -> Shown:
    """A pod at the moment `now` (nanoseconds since the epoch). By container: why it does not start, in how
    many seconds it is tried again, what its probes complain of."""
    statuses = {
        one.name: one
        for group in (
            status.initContainerStatuses,
            status.containerStatuses,
            status.ephemeralContainerStatuses,
        )
        for one in group or []
    }
    initial = {one.name for one in manifest.init_containers if not manifest.is_sidecar(one)}
    rows = [
        _row(one.name, statuses.get(one.name), now, waiting.get(one.name), again.get(one.name, 0.0),
             probes.get(one.name, ""), asks_ready=one.name not in initial)
        for one in manifest.all_containers()
    ]  # fmt: skip
    phase = status.phase or "Pending"
    tone: Tone = {"Running": "good", "Succeeded": "good", "Failed": "bad"}.get(phase, "busy")  # type: ignore[assignment]
    over = phase in ("Succeeded", "Failed")
    if deleting and not over:
        phase, tone = "Terminating", "busy"
    begun = _moment(status.startTime)
    return Shown(
        name=manifest.name,
        phase=phase,
        tone=tone,
        conditions=() if over else tuple(_conditions(status)),
        address=status.podIP or "",
        age=span(int(now / 1e9 - begun)) if begun else "",
        problem=problem or (f"{status.reason}: {status.message or ''}".rstrip(": ") if status.reason else ""),
        rows=tuple(rows),
    )


def lines(
    pods: Sequence[Shown], width: int, height: int, *, coloured: bool = True, plain: bool = False
) -> list[tuple[str, int]]:
    """What to draw in at most `height` lines of `width` columns: each line, and its columns. Pods that are
    well lose their containers first where room is short; what does not fit at all is counted."""
    parts: list[list[_Line]] = [_pod(one, width, _widths(pods, width)) for one in pods]
    room = max(1, height)
    for index in reversed(range(len(pods))):
        if sum(map(len, parts)) <= room:
            break
        if pods[index].well:
            parts[index] = parts[index][:1]
    for index in reversed(range(len(pods))):
        if sum(map(len, parts)) <= room:
            break
        parts[index] = parts[index][:1]
    drawn = [line for part in parts for line in part]
    if len(drawn) > room:
        kept = max(0, room - 1)
        phases = Counter(one.phase for one in pods[kept:])
        words = ", ".join(f"{count} {phase}" for phase, count in phases.items())
        more = f"… and {len(pods) - kept} more pods: {words}" if kept else f"{len(pods)} pods: {words}"
        drawn = [*drawn[:kept], [(fitted(more, width), "dim")]]
    return [_drawn(line, coloured=coloured, plain=plain) for line in drawn]


_Line = list[tuple[str, Tone]]
"""Pieces of a line, each in a colour."""


def _pod(pod: Shown, width: int, widths: tuple[int, int, int, int]) -> list[_Line]:
    found = [_rule(pod, width)]
    if pod.problem:
        found.append([(" " * INDENT + fitted(pod.problem, width - INDENT), "bad")])
    return found + [_line(row, width, widths) for row in pod.rows]


def _rule(pod: Shown, width: int) -> _Line:
    """ "── web · Running · Ready · 10.88.0.2 · 12s ─────", without the last parts where it is narrow."""
    ready = [row.ready for row in pod.rows if row.ready is not None]
    parts: list[tuple[str, Tone]] = [(pod.name, ""), (pod.phase, pod.tone), *pod.conditions]
    if len(ready) > 1 and pod.conditions:
        parts.append((f"{sum(ready)}/{len(ready)} ready", "dim"))
    parts += [(text, "dim") for text in (pod.address, pod.age) if text]
    line: _Line = [("── ", "dim")]
    used = 3
    for index, (text, tone) in enumerate(parts):
        before = " · " if index else ""
        if used + len(before) + len(text) > width - 2:
            if index == 0:
                line.append((fitted(text, width - 5), tone))
                used += len(line[-1][0])
            break
        line += [(before, "dim"), (text, tone)]
        used += len(before) + len(text)
    line.append((" " + "─" * max(0, width - used - 1), "dim"))
    return line


def _line(row: Row, width: int, widths: tuple[int, int, int, int]) -> _Line:
    name, state, ready, restarts = widths
    line: _Line = [
        (" " * INDENT + fitted(row.name, name).ljust(name), ""),
        (" " * GAP + fitted(row.state, state).ljust(state), row.tone),
    ]
    if ready:
        tone: Tone = "good" if row.ready else "busy" if row.tone not in ("", "dim") else "dim"
        line.append((" " * GAP + _ready(row).ljust(ready), tone))
    if restarts:
        line.append((" " * GAP + _restarts(row).ljust(restarts), "" if row.restarts else "dim"))
    room = width - sum(len(text) for text, _ in line) - GAP
    if row.note and room >= MIN_NOTE:
        line.append((" " * GAP + fitted(row.note, room), "bad" if row.tone == "bad" else "dim"))
    return line


def _widths(pods: Sequence[Shown], width: int) -> tuple[int, int, int, int]:
    """Of the columns name, state, ready and restarts, the same for all pods; 0 for one that is left out."""
    rows = [row for pod in pods for row in pod.rows]

    def widest(texts: Iterator[str]) -> int:
        return max(map(len, texts), default=0)

    name, state = widest(row.name for row in rows), widest(row.state for row in rows)
    ready, restarts = widest(map(_ready, rows)), widest(map(_restarts, rows))
    room = width - INDENT
    name = max(min(name, room // 3), min(name, MIN_NAME))
    if name + state + ready + restarts + 3 * GAP > room:
        ready = 0
    if name + state + restarts + 2 * GAP > room:
        restarts = 0
    return name, max(1, min(state, room - name - GAP)), ready, restarts


def _ready(row: Row) -> str:
    return "" if row.ready is None else "ready" if row.ready else "not ready"


def _restarts(row: Row) -> str:
    return "" if not row.restarts else "1 restart" if row.restarts == 1 else f"{row.restarts} restarts"


def _conditions(status: PodStatus) -> Iterator[tuple[str, Tone]]:
    """The first that is not met and the pod's readiness; nobody needs to read of those before."""
    found = {one.type: one for one in status.conditions or []}
    for name, met in (("PodReadyToStartContainers", ""), ("Initialized", "Initialized")):
        one = found.get(name)
        if one is None or one.status != "True":
            yield ("no sandbox yet" if not met else f"not {name}"), "busy"
            return
    gates = [one.type for one in found.values() if one.status != "True" and one.type not in _KUBELETS]
    ready = found.get("Ready")
    if ready is not None and ready.status == "True":
        yield "Ready", "good"
    else:
        yield "Initialized", "good"
        yield "not Ready", "busy"
        yield from ((f"gate {one} not met", "busy") for one in gates)


_KUBELETS = ("Ready", "ContainersReady", "Initialized", "PodScheduled", "PodReadyToStartContainers")


def _row(
    name: str, status: ContainerStatus | None, now: int, waiting: Waiting | None, again: float, probe: str,
    *, asks_ready: bool,
) -> Row:  # fmt: skip
    state = status.state if status is not None else None
    restarts = status.restartCount if status is not None else 0
    if state is not None and state.running is not None:
        ready = bool(status is not None and status.ready) if asks_ready else None
        begun = _moment(state.running.startedAt)
        note = probe or _before(status)
        tone: Tone = "good" if ready is not False else "busy"
        return Row(name, f"Running {span(int(now / 1e9 - begun))}", tone, ready, restarts, note)
    ended = state.terminated if state is not None else None
    reason, message = _why(state, waiting)
    ready = False if asks_ready and (ended is None or reason) else None
    if not reason and ended is not None:
        tone = "bad" if ended.exitCode else "dim"
        return Row(name, _ended(ended), tone, ready, restarts, (ended.message or "").strip())
    if reason in ("", *BEGINNING):
        if reason == "PodInitializing":
            return Row(name, "Waiting", "dim", ready, restarts)
        return Row(name, "Creating", "busy", ready, restarts)
    seconds = f" {max(1, round(again))}s" if again > 0 else ""
    last = status.lastState.terminated if status is not None and status.lastState is not None else None
    if reason == "CrashLoopBackOff" and (ended or last):
        end = ended or last
        assert end is not None
        message = f"last: {_ended(end)}{_lasted(end)}" + (f": {end.message.strip()}" if end.message else "")
    return Row(name, reason + seconds, "bad", ready, restarts, message)


def _why(state: ContainerState | None, waiting: Waiting | None) -> tuple[str, str]:
    """Why it does not run: what was found out last counts more than the last status."""
    if waiting is not None:
        return waiting.reason, waiting.message
    if state is not None and state.waiting is not None:
        return state.waiting.reason or "", state.waiting.message or ""
    return "", ""


def _before(status: ContainerStatus | None) -> str:
    last = status.lastState.terminated if status is not None and status.lastState is not None else None
    return f"before: {_ended(last)}" if last is not None else ""


def _ended(end: ContainerStateTerminated) -> str:
    reason = end.reason or ("Error" if end.exitCode else "Completed")
    return f"{reason} ({end.exitCode})" if end.exitCode else reason


def _lasted(end: ContainerStateTerminated) -> str:
    begun, ended = _moment(end.startedAt), _moment(end.finishedAt)
    return f" after {span(int(ended - begun))}" if begun and ended else ""


def _moment(time: object) -> float:
    """Seconds since the epoch; 0 for no time."""
    return datetime.fromisoformat(str(time)).timestamp() if time else 0.0


# Text of any width


def columns(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(_columns(one) for one in text)


def fitted(text: str, width: int) -> str:
    """One line of at most `width` columns: what is too long ends in "…"; nothing in it moves the cursor."""
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    if columns(text) <= width:
        return text
    kept, used = "", 0
    for one in text:
        used += _columns(one)
        if used > width - 1:
            break
        kept += one
    return f"{kept}…" if width > 0 else ""


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _drawn(line: _Line, *, coloured: bool, plain: bool) -> tuple[str, int]:
    pieces = [(text.translate(PLAIN) if plain else text, tone) for text, tone in line]
    while len(pieces) > 1 and not pieces[-1][0].strip():
        pieces.pop()
    pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
    width = sum(columns(text) for text, _ in pieces)
    return "".join(painted(text, COLOURS[tone] if coloured else "") for text, tone in pieces), width
