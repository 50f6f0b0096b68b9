"""What a pod asks of its network, and how that is written for CNI plugins. Pure: no I/O.

CNI_ARGS and the capability arguments (`runtimeConfig`) follow the CNI conventions document; which of the
arguments a plugin gets is decided by the capabilities that its configuration declares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
MIN_RATE = 10**3
MAX_RATE = 10**15
BURST = 2**32 - 1
"""Bits that may pass above the rate: the most that the bandwidth plugin takes."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One sandbox on its network."""

    id: str
    netns: str
    """Path of the network namespace; "" when it is gone, which only DEL accepts."""
    name: str = ""
    namespace: str = ""
    uid: str = ""
    ports: Sequence[cri.PortMapping] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    dns: cri.DNSConfig | None = None
    cgroup_parent: str = ""

    @classmethod
    def of(cls, id: str, config: cri.PodSandboxConfig, netns: str) -> Attachment:
        """That of the sandbox `id`, made as `config` asks."""
        return cls(
            id=id,
            netns=netns,
            name=config.metadata.name,
            namespace=config.metadata.namespace,
            uid=config.metadata.uid,
            ports=config.port_mappings,
            annotations=config.annotations,
            dns=config.dns_config if config.HasField("dns_config") else None,
            cgroup_parent=config.linux.cgroup_parent,
        )


def cni_args(attachment: Attachment) -> str:
    """CNI_ARGS: the pod in the form that Kubernetes' plugins read. InvalidArgument for a ';' in a name."""
    fields = {
        "K8S_POD_NAMESPACE": ("namespace", attachment.namespace),
        "K8S_POD_NAME": ("name", attachment.name),
        "K8S_POD_INFRA_CONTAINER_ID": ("", attachment.id),
        "K8S_POD_UID": ("uid", attachment.uid),
    }
    for key, value in fields.values():
        if ";" in value:
            raise InvalidArgument(
                f"config.metadata.{key}", f"{value!r} must not contain ';': CNI cannot pass it"
            )
    return ";".join(["IgnoreUnknown=1", *(f"{name}={value}" for name, (_, value) in fields.items())])


def capability_args(attachment: Attachment, pod_cidrs: Sequence[str] = ()) -> dict[str, Any]:
    """Every capability argument the pod has a value for. InvalidArgument for a bad bandwidth annotation."""
    arguments: dict[str, Any] = {}
    if ports := port_mappings(attachment.ports):
        arguments["portMappings"] = ports
    if limits := bandwidth(attachment.annotations):
        arguments["bandwidth"] = limits
    if attachment.dns is not None:
        arguments["dns"] = {
            "servers": list(attachment.dns.servers),
            "searches": list(attachment.dns.searches),
            "options": list(attachment.dns.options),
        }
    if pod_cidrs:
        arguments["ipRanges"] = [[{"subnet": subnet}] for subnet in pod_cidrs]
    if attachment.annotations:
        arguments["io.kubernetes.cri.pod-annotations"] = dict(attachment.annotations)
    if attachment.cgroup_parent:
        arguments["cgroupPath"] = attachment.cgroup_parent
    return arguments


def port_mappings(ports: Sequence[cri.PortMapping]) -> list[dict[str, Any]]:
    """The mappings that ask for a host port; the others only say what the pod listens on."""
    return [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": cri.Protocol.Name(port.protocol).lower(),
            "hostIP": port.host_ip,
        }
        for port in ports
        if port.host_port > 0
    ]


def bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """Limits in bits a second from the pod's annotations; empty when it has none.

    InvalidArgument unless each is a Kubernetes quantity from 1k to 1P.
    """
    limits: dict[str, int] = {}
    for key, direction in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if (text := annotations.get(key)) is not None:
            limits[f"{direction}Rate"] = _rate(f"config.annotations[{key}]", text)
            limits[f"{direction}Burst"] = BURST
    return limits


_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def _rate(field: str, text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidArgument(field, f"{text!r} is no quantity: write it like 10M")
    number, suffix, exponent = match.groups()
    try:
        value = Decimal(number)
        if exponent:
            value = value.scaleb(int(exponent))
        elif suffix in _DECIMAL:
            value = value.scaleb(_DECIMAL[suffix])
        elif suffix:
            value *= 2 ** _BINARY[suffix]
    except InvalidOperation:
        raise InvalidArgument(field, f"{text!r} is no quantity: write it like 10M") from None
    if not MIN_RATE <= value <= MAX_RATE:
        raise InvalidArgument(field, f"{text} bits a second is not between 1k and 1P")
    return int(value.to_integral_value(ROUND_CEILING))
