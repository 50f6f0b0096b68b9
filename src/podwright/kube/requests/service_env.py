"""The variables that tell a container of the Services of its namespace. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from podwright.kube.manifests.objects import Objects, Service

API_SERVER = ("default", "kubernetes")
"""Every pod is told of this one, whatever it says of service links."""


def variables(objects: Objects, namespace: str, *, links: bool) -> dict[str, str]:
    """`links`: the pod's enableServiceLinks. Services without an address of their own are left out."""
    told: dict[str, Service] = {}
    if links:
        told = {one.name: one for one in objects.services_of(namespace)}
    api_server = objects.services.get(API_SERVER)
    if api_server is not None:
        told.setdefault(api_server.name, api_server)
    return of_services(one for _, one in sorted(told.items()))


def of_services(services: Iterable[Service]) -> dict[str, str]:
    found: dict[str, str] = {}
    for service in services:
        if service.cluster_ip in ("", "None") or not service.ports:
            continue
        prefix = _name(service.name)
        found[f"{prefix}_SERVICE_HOST"] = service.cluster_ip
        found[f"{prefix}_SERVICE_PORT"] = str(service.ports[0].port)
        for port in service.ports:
            if port.name:
                found[f"{prefix}_SERVICE_PORT_{_name(port.name)}"] = str(port.port)
        for index, port in enumerate(service.ports):
            protocol = port.protocol.lower()
            address = service.cluster_ip
            # An IPv6 address stands in brackets before a port.
            url = f"{protocol}://{f'[{address}]' if ':' in address else address}:{port.port}"
            if index == 0:
                found[f"{prefix}_PORT"] = url
            link = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
            found |= {
                link: url,
                f"{link}_PROTO": protocol,
                f"{link}_PORT": str(port.port),
                f"{link}_ADDR": address,
            }
    return found


def _name(text: str) -> str:
    return text.upper().replace("-", "_")
