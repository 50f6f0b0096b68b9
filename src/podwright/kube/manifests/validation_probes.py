"""What the API server would refuse in probes and hooks. Pure."""

from __future__ import annotations

import re
from typing import Any

from podwright.kube.manifests.checks import MAX_INT32, Faults, at_least, between, one_of, port
from podwright.kube.models import Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe

_HEADER = re.compile(r"[-A-Za-z0-9]+")


def check(spec: PodSpec, container: Container, place: str) -> Faults:
    plain_init = any(container is one for one in spec.initContainers or []) and (
        container.restartPolicy != "Always"
    )
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe: Probe | None = getattr(container, name)
        if probe is None:
            continue
        if plain_init:
            yield f"{place}.{name}", "an init container that ends cannot have it (restartPolicy: Always may)"
        yield from _check_probe(probe, f"{place}.{name}", name)
    lifecycle = container.lifecycle
    for name in ("postStart", "preStop"):
        handler: LifecycleHandler | None = getattr(lifecycle, name, None)
        if handler is None:
            continue
        if plain_init:
            yield f"{place}.lifecycle.{name}", "an init container that ends cannot have it"
        yield from _check_handler(spec, handler, f"{place}.lifecycle.{name}")


def _check_probe(probe: Probe, place: str, name: str) -> Faults:
    yield from _check_actions(probe, place, ("exec", "httpGet", "tcpSocket", "grpc"))
    yield from between(f"{place}.initialDelaySeconds", probe.initialDelaySeconds, 0, MAX_INT32)
    for number in ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        yield from between(f"{place}.{number}", getattr(probe, number), 1, MAX_INT32)
    if name != "readinessProbe" and probe.successThreshold not in (None, 1):
        yield f"{place}.successThreshold", "must be 1"
    yield from at_least(f"{place}.terminationGracePeriodSeconds", probe.terminationGracePeriodSeconds, 1)
    if name == "readinessProbe" and probe.terminationGracePeriodSeconds is not None:
        yield f"{place}.terminationGracePeriodSeconds", "a readiness probe stops nothing"
    if probe.grpc is not None:
        yield from port(f"{place}.grpc.port", probe.grpc.port)


def _check_handler(spec: PodSpec, handler: LifecycleHandler, place: str) -> Faults:
    yield from _check_actions(handler, place, ("exec", "httpGet", "tcpSocket", "sleep"))
    if handler.sleep is not None:
        grace = spec.terminationGracePeriodSeconds or 0
        if not 0 <= handler.sleep.seconds <= grace:
            text = f"{handler.sleep.seconds} is not between 0 and terminationGracePeriodSeconds, {grace}"
            yield f"{place}.sleep.seconds", text


def _check_actions(owner: Any, place: str, names: tuple[str, ...]) -> Faults:
    said = [name for name in names if getattr(owner, name) is not None]
    if len(said) != 1:
        what = f", not {' and '.join(said)}" if said else ""
        yield place, f"one of {', '.join(names)} is needed{what}"
    if owner.exec is not None and not owner.exec.command:
        yield f"{place}.exec.command", "is needed"
    if owner.httpGet is not None:
        yield from _check_http(owner.httpGet, f"{place}.httpGet")
    if owner.tcpSocket is not None:
        yield from port(f"{place}.tcpSocket.port", owner.tcpSocket.port, named=True)


def _check_http(action: HTTPGetAction, place: str) -> Faults:
    yield from port(f"{place}.port", action.port, named=True)
    yield from one_of(f"{place}.scheme", action.scheme, ("HTTP", "HTTPS"))
    for index, header in enumerate(action.httpHeaders or []):
        if not _HEADER.fullmatch(header.name):
            yield f"{place}.httpHeaders[{index}].name", f"{header.name!r} is not the name of a header"
