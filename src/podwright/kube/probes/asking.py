"""Asking a container once, in the way that its probe says."""

from __future__ import annotations

from podwright.api import Cri
from podwright.clock import Clock
from podwright.kube.models import AnyContainer, Probe
from podwright.kube.probes import exec, grpc, http, tcp
from podwright.kube.probes.answers import Answer, ProbeError
from podwright.kube.requests import ports
from podwright.kube.requests.env import expand

TRIES = 3
"""So often it is tried to ask at all."""
GRACE = 120.0
"""Seconds beyond its own limit that a runtime gets to end a command."""


async def ask(
    probe: Probe, container: AnyContainer, container_id: str, *, host: str, runtime: Cri, clock: Clock
) -> Answer:
    """`host`: the pod's address. ProbeError when it could not be asked, each time."""
    for left in reversed(range(TRIES)):
        try:
            return await _ask(probe, container, container_id, host, runtime, clock)
        except ProbeError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


async def _ask(
    probe: Probe, container: AnyContainer, container_id: str, host: str, runtime: Cri, clock: Clock
) -> Answer:
    limit = probe.timeoutSeconds or 1
    try:
        if probe.exec is not None:
            # Only what the manifest says literally is known here, as in a kubelet.
            known = {one.name: one.value or "" for one in container.env or []}
            command = [expand(part, known) for part in probe.exec.command or []]
            async with clock.timeout(limit + GRACE):
                return await exec.ask(runtime, container_id, command, limit)
        if probe.httpGet is not None:
            port = ports.resolve(container, probe.httpGet.port)
            return await http.ask(probe.httpGet, host, port, limit, clock)
        if probe.tcpSocket is not None:
            port = ports.resolve(container, probe.tcpSocket.port)
            return await tcp.ask(probe.tcpSocket.host or host, port, limit, clock)
        if probe.grpc is not None:
            return await grpc.ask(host, probe.grpc.port, probe.grpc.service or "", limit, clock)
    except ValueError as error:
        raise ProbeError(str(error)) from error
    except TimeoutError as error:
        raise ProbeError("the runtime does not answer") from error
    raise ProbeError(f"missing probe handler for {container.name}")
