"""The objects that stand beside pods in a stream: ConfigMaps, Secrets, Services and the classes pods name.
Pure, but for what reads files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class ConfigMap:
    namespace: str
    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    """What variables can be made of."""
    binary: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """All keys, as a volume has them."""
        return {**{key: value.encode() for key, value in self.data.items()}, **self.binary}


@dataclass(frozen=True, slots=True)
class Secret:
    namespace: str
    name: str
    data: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    type: str = "Opaque"

    @property
    def files(self) -> dict[str, bytes]:
        return dict(self.data)


@dataclass(frozen=True, slots=True)
class ServicePort:
    port: int
    name: str = ""
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    cluster_ip: str = ""
    """ "None" for a headless one; "" where no address is known."""
    ports: tuple[ServicePort, ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeClass:
    name: str
    handler: str
    overhead: Mapping[str, Any] = field(default_factory=dict)
    """Quantities by resource, that each pod of the class costs beside its containers."""


@dataclass(frozen=True, slots=True)
class PriorityClass:
    name: str
    value: int
    preemption_policy: str = "PreemptLowerPriority"
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    namespace: str
    name: str
    pull_secrets: tuple[str, ...] = ()
    automount: bool | None = None


@dataclass(frozen=True, slots=True)
class Objects:
    """All of them, by namespace and name; the classes by name."""

    config_maps: Mapping[Key, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[Key, Secret] = field(default_factory=dict)
    services: Mapping[Key, Service] = field(default_factory=dict)
    service_accounts: Mapping[Key, ServiceAccount] = field(default_factory=dict)
    runtime_classes: Mapping[str, RuntimeClass] = field(default_factory=dict)
    priority_classes: Mapping[str, PriorityClass] = field(default_factory=dict)

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return self.config_maps.get((namespace, name))

    def secret(self, namespace: str, name: str) -> Secret | None:
        return self.secrets.get((namespace, name))

    def services_of(self, namespace: str) -> list[Service]:
        """Those that the pods of a namespace are told of, by name."""
        return [one for key, one in sorted(self.services.items()) if key[0] == namespace]
