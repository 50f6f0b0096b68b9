"""The objects that stand beside pods in a stream: ConfigMaps, Secrets, Services and the classes pods name.

Pure, but for what reads files.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.kube import models
from podwright.kube.manifests import fields

Key = tuple[str, str]
"""Namespace and name."""
MAX_BYTES = 1 << 20
"""What a ConfigMap or Secret may hold in all."""
TOKEN_SECRET = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
"""Annotation of such a Secret: whose token it is."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


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
    account: str = ""
    """The service account whose token it is, where it is of that type."""

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

    def token(self, namespace: str, account: str) -> Secret | None:
        """The Secret with the token of a service account."""
        found = (one for one in self.secrets.values() if one.type == TOKEN_SECRET)
        return next((one for one in found if (one.namespace, one.account) == (namespace, account)), None)

    def services_of(self, namespace: str) -> list[Service]:
        """Those that the pods of a namespace are told of, by name."""
        return [one for key, one in sorted(self.services.items()) if key[0] == namespace]

    def adding(self, *others: Any) -> Objects:
        """These and others; one of the same name takes the place of its predecessor."""
        changed: dict[str, dict[Any, Any]] = {}
        for one in others:
            attribute, by_name = _PLACES[type(one)]
            here = changed.setdefault(attribute, dict(getattr(self, attribute)))
            here[one.name if by_name else (one.namespace, one.name)] = one
        return replace(self, **changed)

    def merged(self, other: Objects) -> Objects:
        """These, and those of `other` over them."""
        return self.adding(
            *(one for attribute, _ in _PLACES.values() for one in getattr(other, attribute).values())
        )

    def __contains__(self, one: object) -> bool:
        """Whether there is one of the same kind and name."""
        attribute, by_name = _PLACES[type(one)]
        key: Any = one.name if by_name else (one.namespace, one.name)  # type: ignore[attr-defined]
        return key in getattr(self, attribute)


_PLACES: dict[type, tuple[str, bool]] = {
    ConfigMap: ("config_maps", False),
    Secret: ("secrets", False),
    Service: ("services", False),
    ServiceAccount: ("service_accounts", False),
    RuntimeClass: ("runtime_classes", True),
    PriorityClass: ("priority_classes", True),
}


def from_tree(tree: Mapping[str, Any], place: str) -> object:
    """The object that a document describes, of a kind in `KINDS`. InvalidArgument names what is wrong."""
    model, build = KINDS[str(tree.get("apiVersion")), str(tree.get("kind"))]
    kind, tree = tree["kind"], fields.wanted(tree)
    try:
        parsed = structs.convert(fields.numbers_as_text(tree), model)
    except msgspec.ValidationError as error:
        raise InvalidArgument(place, f"{kind}: {str(error).replace('`$.', '`')}") from error
    for path, near in fields.unknown(tree, parsed):
        hint = f"; is it {near}?" if near else ""
        raise InvalidArgument(place, f"{kind}: {path}: no such field{hint}")
    metadata = getattr(parsed, "metadata", None)
    if metadata is None or not metadata.name:
        raise InvalidArgument(place, f"{kind}: metadata.name is needed")
    try:
        return build(parsed, metadata.namespace or "default", metadata.name)
    except ValueError as error:
        raise InvalidArgument(place, f"{kind} {metadata.name}: {error}") from error


def config_map_of(name: str, path: Path, *, namespace: str = "default") -> ConfigMap:
    """A ConfigMap of a file, or of the files of a directory, as `kubectl create configmap --from-file` makes
    it. InvalidArgument when it cannot be read or a file's name is no key. Blocks."""
    text, binary = {}, {}
    for key, content in _files(path).items():
        try:
            text[key] = content.decode()
        except UnicodeDecodeError:
            binary[key] = content
    return ConfigMap(namespace, name, text, binary)


def secret_of(name: str, path: Path, *, namespace: str = "default") -> Secret:
    """A Secret of a file, or of the files of a directory. InvalidArgument as above. Blocks."""
    return Secret(namespace, name, _files(path))


def _files(path: Path) -> dict[str, bytes]:
    try:
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        found = {one.name: one.read_bytes() for one in files}
        _check_keys(found)
        _check_size(len(one) for one in found.values())
    except OSError as error:
        raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(str(path), str(error)) from error
    return found


def _config_map(one: models.ConfigMap, namespace: str, name: str) -> ConfigMap:
    text, binary = one.data or {}, one.binaryData or {}
    _check_keys([*text, *binary])
    for key, value in text.items():
        if not isinstance(value, str):
            raise ValueError(f"data[{key}]: {value!r} is not a string: put it in quotes")
    if twice := sorted(set(text) & set(binary)):
        raise ValueError(f"binaryData[{twice[0]}]: is in data, too")
    decoded = {key: _decoded(f"binaryData[{key}]", value) for key, value in binary.items()}
    _check_size([*(len(one.encode()) for one in text.values()), *map(len, decoded.values())])
    return ConfigMap(namespace, name, text, decoded)


def _secret(one: models.Secret, namespace: str, name: str) -> Secret:
    data = {key: _decoded(f"data[{key}]", value) for key, value in (one.data or {}).items()}
    for key, value in (one.stringData or {}).items():
        if not isinstance(value, str):
            raise ValueError(f"stringData[{key}]: {value!r} is not a string: put it in quotes")
        data[key] = value.encode()
    _check_keys(data)
    _check_size(map(len, data.values()))
    kind = one.type or "Opaque"
    for wanted in _SECRET_KEYS.get(kind, ()):
        if not any(key in data for key in wanted):
            raise ValueError(f"data[{wanted[0]}]: a Secret of type {kind} needs it")
    annotations = (one.metadata.annotations if one.metadata is not None else None) or {}
    return Secret(namespace, name, data, kind, str(annotations.get(ACCOUNT_NAME, "")))


def _service(one: models.Service, namespace: str, name: str) -> Service:
    spec = one.spec
    ports = tuple(
        ServicePort(port.port, port.name or "", port.protocol or "TCP")
        for port in (spec.ports if spec is not None else None) or []
    )
    external = spec is not None and spec.type == "ExternalName"
    address = (spec.clusterIP or "") if spec is not None and not external else ""
    return Service(namespace, name, address, ports)


def _runtime_class(one: models.RuntimeClass, namespace: str, name: str) -> RuntimeClass:
    return RuntimeClass(
        name, one.handler, (one.overhead.podFixed if one.overhead is not None else None) or {}
    )


def _priority_class(one: models.PriorityClass, namespace: str, name: str) -> PriorityClass:
    policy = one.preemptionPolicy or "PreemptLowerPriority"
    return PriorityClass(name, one.value or 0, policy, bool(one.globalDefault))


def _service_account(one: models.ServiceAccount, namespace: str, name: str) -> ServiceAccount:
    secrets = tuple(each.name for each in one.imagePullSecrets or [] if each.name)
    return ServiceAccount(namespace, name, secrets, one.automountServiceAccountToken)


_SECRET_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "kubernetes.io/dockerconfigjson": ((".dockerconfigjson",),),
    "kubernetes.io/dockercfg": ((".dockercfg",),),
    "kubernetes.io/basic-auth": (("username", "password"),),
    "kubernetes.io/ssh-auth": (("ssh-privatekey",),),
    "kubernetes.io/tls": (("tls.crt",), ("tls.key",)),
}
"""Keys that a Secret of a type must have, each one of several."""

KINDS: dict[tuple[str, str], tuple[type[Any], Callable[[Any, str, str], object]]] = {
    ("v1", "ConfigMap"): (models.ConfigMap, _config_map),
    ("v1", "Secret"): (models.Secret, _secret),
    ("v1", "Service"): (models.Service, _service),
    ("v1", "ServiceAccount"): (models.ServiceAccount, _service_account),
    ("node.k8s.io/v1", "RuntimeClass"): (models.RuntimeClass, _runtime_class),
    ("scheduling.k8s.io/v1", "PriorityClass"): (models.PriorityClass, _priority_class),
}


def _decoded(place: str, value: object) -> bytes:
    if value is None:
        return b""
    try:
        # Line breaks come with block scalars.
        return base64.b64decode("".join(str(value).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place}: is not base64 ({error}); plain text belongs in stringData") from error


def _check_keys(keys: Iterable[str]) -> None:
    for key in keys:
        if not _KEY.fullmatch(key) or key in (".", "..") or key.startswith(".."):
            raise ValueError(f"{key!r} is no key: letters, digits, -, _ and . are allowed")


def _check_size(sizes: Iterable[int]) -> None:
    if (size := sum(sizes)) > MAX_BYTES:
        raise ValueError(f"holds {size} bytes, more than {MAX_BYTES}")
