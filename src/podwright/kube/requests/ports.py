"""The port that a probe or a hook means, by number or by the name of one of the container's ports. Pure."""

from __future__ import annotations

from podwright.kube.models import AnyContainer


def resolve(container: AnyContainer, port: int | str) -> int:
    """ValueError, in the kubelet's words, where there is no such port."""
    number = port if isinstance(port, int) else _named(container, port)
    if not 0 < number < 65536:
        raise ValueError(f"invalid port number: {number}")
    return number


def _named(container: AnyContainer, name: str) -> int:
    for port in container.ports or []:
        if port.name == name:
            return port.containerPort
    if not name.isdecimal():
        raise ValueError(f'strconv.Atoi: parsing "{name}": invalid syntax')
    return int(name)
