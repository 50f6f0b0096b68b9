"""The hooks of a container: what is run right after its start and before its stop signal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from podwright.api import Cri
from podwright.clock import Clock
from podwright.errors import PodwrightError
from podwright.kube.failures import HookError
from podwright.kube.life import words
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, HTTPGetAction, LifecycleHandler
from podwright.kube.node import PodFacts
from podwright.kube.probes import http_get
from podwright.kube.probes.http import headers
from podwright.kube.requests import ports
from podwright.wire import cri_pb2 as cri

USER_AGENT = "kube-lifecycle/1.36"


async def run_handler(
    handler: LifecycleHandler,
    manifest: Manifest,
    container: AnyContainer,
    container_id: str,
    *,
    facts: PodFacts,
    runtime: Cri,
    clock: Clock,
) -> None:
    """Run a hook to its end; it has no time limit of its own, a grace period is the caller's.

    Raises HookError with the kubelet's message: a command that did not exit with 0, an HTTP server that did
    not answer (any status will do). A tcpSocket is no hook that a kubelet can run, and fails.
    """
    pod = f"{manifest.name}_{manifest.namespace}({manifest.uid})"
    whose = f'for Container "{container.name}" in Pod "{pod}" failed - error:'
    if handler.exec is not None:
        await _exec(runtime, container_id, handler.exec.command or [], whose)
    elif handler.httpGet is not None:
        try:
            await _http(handler.httpGet, container, facts)
        except (http_get.GetError, ValueError) as error:
            path = handler.httpGet.path or "/"
            raise HookError(f"HTTP lifecycle hook ({path}) {whose} {error}") from error
    elif handler.sleep is not None:
        await clock.sleep(handler.sleep.seconds)
    else:
        kind = "tcpSocket" if handler.tcpSocket is not None else "nothing"
        raise HookError(f"Cannot run handler: invalid handler: {kind}")


async def _exec(runtime: Cri, container_id: str, command: Sequence[str], whose: str) -> None:
    line = " ".join(command)
    what = f"Exec lifecycle hook ([{line}]) {whose}"
    try:
        answer = await runtime.exec_sync(cri.ExecSyncRequest(container_id=container_id, cmd=command))
    except PodwrightError as error:
        raise HookError(f'{what} {words.rpc(error)}, message: ""') from error
    if answer.exit_code:
        stderr = answer.stderr.decode(errors="replace")
        output = json.dumps((answer.stdout + answer.stderr).decode(errors="replace"), ensure_ascii=False)
        raise HookError(
            f"{what} command '{line}' exited with {answer.exit_code}: {stderr}, message: {output}"
        )


async def _http(action: HTTPGetAction, container: AnyContainer, facts: PodFacts) -> None:
    host = action.host or (facts.ips[0] if facts.ips else "")
    if not host:
        raise ValueError("failed to find networking container: the pod has no address")
    scheme = action.scheme or "HTTP"
    # The scheme's own port where none is said.
    port = ports.resolve(container, action.port) if action.port else 443 if scheme == "HTTPS" else 80
    wanted = headers(action.httpHeaders, USER_AGENT)
    try:
        await http_get.get(http_get.url(scheme, host, port, action.path or "/"), wanted, only_host=False)
    except http_get.PlainAnswerError:
        # Hooks were once sent without TLS whatever they said, and servers still rely on it.
        plain = [(name, value) for name, value in wanted if name.lower() != "authorization"]
        await http_get.get(http_get.url("HTTP", host, port, action.path or "/"), plain, only_host=False)
