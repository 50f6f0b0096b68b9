"""How `podwright describe` reads: the words and the order of kubectl describe, as far as both know the same.
Pure but for the terminal's width.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from podwright.cli import describe_volumes
from podwright.cli.output import painted
from podwright.kube.models import Container, ContainerPort, Probe

if TYPE_CHECKING:
    from podwright.cli.describe import Described
    from podwright.kube.models import AnyContainer, ContainerState, ContainerStatus, EnvVar, Pod
    from podwright.kube.state.pod_state import Seen

NONE, UNSET = "<none>", "<unset>"
GAP = 2
WIDEST_LABEL = 24
"""What is longer does not push all others to the right."""
MIN_MESSAGE = 30

Entry = tuple[str, "str | Sequence[str] | Section"]


class Section(list[Entry]):
    """What stands indented below its label."""


def lines(one: Described, *, terminal: bool = False) -> Iterator[str]:
    """The text, line by line; with colours and folded messages on a terminal."""
    coloured = terminal and not os.environ.get("NO_COLOR")
    if one.note:
        yield painted(f"Note: {one.note}", "33" if coloured else "")
    yield from _rendered(_pod(one))
    yield from _conditions(one.pod)
    yield from _rendered(Section([("Volumes", _volumes(one.pod, one.noted))]))
    qos = one.pod.status.qosClass if one.pod.status is not None else None
    yield from _rendered(Section([("QoS Class", qos or NONE)]))
    yield from _events(one, shutil.get_terminal_size().columns if terminal else None, coloured)


# The pod


def _pod(one: Described) -> Section:
    pod, status = one.pod, one.pod.status
    metadata, spec = pod.metadata, pod.spec
    assert metadata is not None and spec is not None
    address = f"/{status.hostIP}" if status is not None and status.hostIP else ""
    found = Section(
        [
            ("Name", metadata.name or ""),
            ("Namespace", metadata.namespace or "default"),
            ("UID", metadata.uid or ""),
            ("Node", f"{spec.nodeName or one.node}{address}"),
        ]
    )
    if spec.priority is not None:
        named = f" ({spec.priorityClassName})" if spec.priorityClassName else ""
        found.append(("Priority", f"{spec.priority}{named}"))
    if spec.runtimeClassName:
        found.append(("Runtime Class", spec.runtimeClassName))
    if spec.serviceAccountName:
        found.append(("Service Account", spec.serviceAccountName))
    found += [
        ("Start Time", _time(status.startTime if status is not None else None)),
        ("Labels", _pairs(metadata.labels)),
        ("Annotations", _pairs(metadata.annotations, ": ")),
        ("Status", (status.phase if status is not None else None) or "Unknown"),
    ]
    if status is not None and status.reason:
        found.append(("Reason", status.reason))
    if status is not None and status.message:
        found.append(("Message", status.message))
    addresses = [each.ip for each in (status.podIPs or [])] if status is not None else []
    found.append(("IP", ", ".join(addresses) or NONE))
    sandbox = one.seen.sandboxes[0] if one.seen.sandboxes else None
    if sandbox is not None:
        found.append(("Sandbox", sandbox.id))
    for owner in metadata.ownerReferences or []:
        found.append(("Controlled By", f"{owner.kind}/{owner.name}"))
    groups = (
        ("Init Containers", spec.initContainers, status.initContainerStatuses if status else None),
        ("Containers", spec.containers, status.containerStatuses if status else None),
        (
            "Ephemeral Containers",
            spec.ephemeralContainers,
            status.ephemeralContainerStatuses if status else None,
        ),
    )
    for title, containers, statuses in groups:
        known = {each.name: each for each in statuses or []}
        if containers:
            found.append(
                (
                    title,
                    Section(
                        [(each.name, _container(each, known.get(each.name), one)) for each in containers]
                    ),
                )
            )
    return found


# Containers


def _container(container: AnyContainer, status: ContainerStatus | None, one: Described) -> Section:
    found = Section()
    if status is not None and status.containerID:
        found.append(("Container ID", status.containerID))
    found.append(("Image", container.image or NONE))
    if status is not None and status.imageID:
        found.append(("Image ID", status.imageID))
    if container.ports:
        found.append(("Ports", ", ".join(map(_port, container.ports))))
    if container.command:
        found.append(("Command", _words(container.command)))
    if container.args:
        found.append(("Args", _words(container.args)))
    found += _states(status)
    resources = container.resources
    for side in ("limits", "requests"):
        amounts: Mapping[str, object] | None = getattr(resources, side, None)
        if amounts:
            found.append((side.title(), ", ".join(f"{name}: {amount}" for name, amount in amounts.items())))
    if isinstance(container, Container):
        for name in ("liveness", "readiness", "startup"):
            probe: Probe | None = getattr(container, f"{name}Probe")
            if probe is not None:
                found.append((name.title(), _probe(probe)))
    if one.noted:
        found += _environment(container)
        found.append(("Mounts", [_mount(each) for each in container.volumeMounts or []] or NONE))
    else:
        found.append(("Mounts", _mounts_of_runtime(one.seen, container.name) or NONE))
    return found


def _states(status: ContainerStatus | None) -> Iterator[Entry]:
    if status is None:
        yield "State", "Waiting"
        return
    yield from _state("State", status.state)
    if status.lastState is not None and status.lastState.terminated is not None:
        yield from _state("Last State", status.lastState)
    yield "Ready", str(status.ready)
    yield "Restart Count", str(status.restartCount)


def _state(label: str, state: ContainerState | None) -> Iterator[Entry]:
    if state is not None and state.running is not None:
        yield label, "Running"
        yield "  Started", _time(state.running.startedAt)
    elif state is not None and state.terminated is not None:
        end = state.terminated
        yield label, "Terminated"
        if end.reason:
            yield "  Reason", end.reason
        if end.message:
            yield "  Message", end.message.rstrip("\n").splitlines() or ""
        if end.signal:
            yield "  Signal", str(end.signal)
        yield "  Exit Code", str(end.exitCode)
        yield "  Started", _time(end.startedAt)
        yield "  Finished", _time(end.finishedAt)
    else:
        waiting = state.waiting if state is not None else None
        yield label, "Waiting"
        if waiting is not None and waiting.reason:
            yield "  Reason", waiting.reason
        if waiting is not None and waiting.message:
            yield "  Message", waiting.message.splitlines()


def _port(port: ContainerPort) -> str:
    text = f"{port.containerPort}/{port.protocol or 'TCP'}"
    if port.name:
        text += f" ({port.name})"
    return f"{text} at {port.hostIP or ''}:{port.hostPort} of the host" if port.hostPort else text


def _probe(probe: Probe) -> str:
    what = "unknown"
    if probe.exec is not None:
        what = f"exec [{' '.join(probe.exec.command or [])}]"
    elif probe.httpGet is not None:
        get = probe.httpGet
        path, scheme = (get.path or "").removeprefix("/"), (get.scheme or "HTTP").lower()
        what = f"http-get {scheme}://{get.host or ''}:{get.port}/{path}"
    elif probe.tcpSocket is not None:
        what = f"tcp-socket {probe.tcpSocket.host or ''}:{probe.tcpSocket.port}"
    elif probe.grpc is not None:
        what = f"grpc <pod>:{probe.grpc.port} {probe.grpc.service or ''}".rstrip()
    return (
        f"{what} delay={probe.initialDelaySeconds or 0}s timeout={probe.timeoutSeconds or 1}s"
        f" period={probe.periodSeconds or 10}s #success={probe.successThreshold or 1}"
        f" #failure={probe.failureThreshold or 3}"
    )


def _environment(container: AnyContainer) -> Iterator[Entry]:
    sources = []
    for source in container.envFrom or []:
        for kind, reference in (("ConfigMap", source.configMapRef), ("Secret", source.secretRef)):
            if reference is not None:
                prefix = f" with prefix '{source.prefix}'" if source.prefix else ""
                sources.append(f"{reference.name}  {kind}{prefix}  Optional: {bool(reference.optional)}")
    if sources:
        yield "Environment Variables from", sources
    variables = container.env or []
    yield "Environment", Section([(one.name, _variable(one)) for one in variables]) if variables else NONE


def _variable(variable: EnvVar) -> str | Sequence[str]:
    source = variable.valueFrom
    if source is None:
        return (variable.value or "").splitlines() or ""
    for kind, reference in (("config map", source.configMapKeyRef), ("secret", source.secretKeyRef)):
        if reference is not None:
            optional = f"  Optional: {bool(reference.optional)}"
            return f"<set to the key '{reference.key}' of {kind} '{reference.name}'>{optional}"
    if source.fieldRef is not None:
        return f"({source.fieldRef.apiVersion or 'v1'}:{source.fieldRef.fieldPath})"
    if source.resourceFieldRef is not None:
        return f"({source.resourceFieldRef.resource} of {source.resourceFieldRef.containerName or 'itself'})"
    if source.fileKeyRef is not None:
        reference = source.fileKeyRef
        return f"<set to the key '{reference.key}' in {reference.path} of volume '{reference.volumeName}'>"
    return NONE


def _mount(mount: Any) -> str:
    flags = ["ro" if mount.readOnly else "rw"]
    sub = mount.subPath or mount.subPathExpr
    if sub:
        flags.append(f'path="{sub}"')
    return f"{mount.mountPath} from {mount.name} ({','.join(flags)})"


def _mounts_of_runtime(seen: Seen, name: str) -> list[str]:
    newest = seen.container(name)
    mounts = newest.status.mounts if newest is not None else ()
    return [
        f"{one.container_path} from {one.host_path or one.image.image} ({'ro' if one.readonly else 'rw'})"
        for one in mounts
    ]


# Conditions, volumes, events


_ORDER = {
    name: index
    for index, name in enumerate(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    )
}


def _conditions(pod: Pod) -> Iterator[str]:
    found = pod.status.conditions if pod.status is not None else None
    if not found:
        return
    yield "Conditions:"
    rows = [("Type", "Status", "Since", "Reason")]
    for one in sorted(found, key=lambda one: _ORDER.get(one.type, len(_ORDER))):
        why = ": ".join(filter(None, (one.reason, one.message)))
        rows.append((one.type, one.status, _clock(one.lastTransitionTime), why))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width + GAP) for cell, width in zip(row, widths, strict=False)]
        yield f"  {''.join(cells)}{row[3]}".rstrip()


def _volumes(pod: Pod, noted: bool) -> str | Section:
    assert pod.spec is not None
    volumes = pod.spec.volumes or []
    if not volumes:
        return NONE if noted else "the runtime does not tell"
    return Section([(one.name, Section(describe_volumes.entries(one))) for one in volumes])


def _events(one: Described, width: int | None, coloured: bool) -> Iterator[str]:
    from podwright.cli.events import how_old

    if not one.events:
        yield "Events:" + (f"  {NONE}" if one.noted else "  only of pods that podwright runs")
        return
    yield "Events:"
    rows = [("Type", "Reason", "Age", "From", "Message")]
    rows += [
        (
            each.type,
            each.reason,
            how_old(each),
            each.object.partition("{")[2].rstrip("}") or "pod",
            " ".join(each.message.split()),
        )
        for each in sorted(one.events, key=lambda each: (each.last, each.first))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    indent = 2 + sum(widths) + 4 * GAP
    room = None if width is None else max(MIN_MESSAGE, width - indent)
    for row in rows:
        cells = "".join(cell.ljust(size + GAP) for cell, size in zip(row, widths, strict=False))
        message = [row[4]] if room is None else textwrap.wrap(row[4], room) or [""]
        if room is not None and width is not None and indent + MIN_MESSAGE > width:
            # Too narrow for a column of its own.
            message = ["", *(" " * 4 + part for part in textwrap.wrap(row[4], max(10, width - 4)))]
            indent = 0
        first = f"  {cells}{message[0]}".rstrip()
        yield painted(first, "33" if coloured and row[0] == "Warning" else "")
        yield from (" " * indent + part for part in message[1:])


# Text


def _rendered(section: Section, indent: int = 0) -> Iterator[str]:
    """Values of one section begin in the same column; several stand below each other."""
    labels = [len(label) for label, value in section if not isinstance(value, Section)]
    column = max((one for one in labels if one <= WIDEST_LABEL), default=0) + 1 + GAP
    margin = " " * indent
    for label, value in section:
        if isinstance(value, Section):
            yield f"{margin}{label}:"
            yield from _rendered(value, indent + 2)
            continue
        values = [value] if isinstance(value, str) else list(value)
        head = f"{label}:"
        head = head.ljust(column) if len(head) < column else f"{head} "
        yield f"{margin}{head}{values[0] if values else ''}".rstrip()
        yield from (f"{margin}{' ' * column}{one}" for one in values[1:])


def _pairs(entries: Mapping[str, Any] | None, between: str = "=") -> str | list[str]:
    return [f"{key}{between}{value}" for key, value in sorted((entries or {}).items())] or NONE


def _words(words: Sequence[str]) -> list[str]:
    return [line for word in words for line in (word.splitlines() or [""])]


def _time(time: object) -> str:
    return format_datetime(datetime.fromisoformat(str(time)).astimezone()) if time else NONE


def _clock(time: object) -> str:
    return datetime.fromisoformat(str(time)).astimezone().strftime("%H:%M:%S") if time else ""
