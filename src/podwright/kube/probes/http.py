"""Asking by HTTP: healthy is who answers with a status from 200 to 399."""

from __future__ import annotations

from collections.abc import Sequence

from podwright.clock import Clock
from podwright.kube.models import HTTPGetAction, HTTPHeader
from podwright.kube.probes import http_get
from podwright.kube.probes.answers import Answer, text

USER_AGENT = "kube-probe/1.36"


async def ask(action: HTTPGetAction, host: str, port: int, timeout: float, clock: Clock) -> Answer:
    """`host` where the action names none; `timeout` in seconds."""
    target = http_get.url(action.scheme or "HTTP", action.host or host, port, action.path or "/")
    try:
        async with clock.timeout(timeout):
            response = await http_get.get(target, headers(action.httpHeaders, USER_AGENT), only_host=True)
    except http_get.GetError as error:
        return Answer(False, str(error))
    except TimeoutError:
        return Answer(
            False,
            f'Get "{target}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        )
    body = text(response.body)
    if 300 <= response.status < 400:
        return Answer(True, f"Probe terminated redirects, Response body: {body}", warning=True)
    if 200 <= response.status < 300:
        return Answer(True, body)
    return Answer(False, f"HTTP probe failed with statuscode: {response.status}")


def headers(own: Sequence[HTTPHeader] | None, agent: str) -> list[tuple[str, str]]:
    """The action's, with User-Agent and Accept where it has none; an empty value takes them away."""
    given = [(one.name, one.value or "") for one in own or []]
    names = {name.lower() for name, _ in given}
    default = [("User-Agent", agent), ("Accept", "*/*")]
    found = [*given, *((name, value) for name, value in default if name.lower() not in names)]
    return [(name, value) for name, value in found if value or name.lower() not in ("user-agent", "accept")]
