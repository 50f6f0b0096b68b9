"""Container → ContainerConfig: what the kubelet says in CreateContainer for the same manifest. Pure.

Files come in as finished mounts, variables as `env` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from podwright.kube.failures import ConfigError, CreateError
from podwright.kube.requests import env, resources, security, signals
from podwright.kube.requests.sandbox import identity
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer
    from podwright.kube.node import Node, PodFacts

HASH = "io.kubernetes.container.hash"
"""Annotation with `container_hash`: when it differs from the manifest's, the container is made anew."""
_GO_ESCAPES = (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"))
_GO_ORDER = (
    "exec", "httpGet", "tcpSocket", "sleep", "command", "seconds", "name", "value",
    "path", "hostPort", "containerPort", "protocol", "hostIP", "port", "host", "scheme", "httpHeaders",
)  # fmt: skip
_PORT_FIELDS = ("name", "hostPort", "containerPort", "protocol", "hostIP")
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193


def container_config(
    manifest: Manifest,
    container: AnyContainer,
    image: cri.Image,
    node: Node,
    facts: PodFacts,
    *,
    environment: Mapping[str, str],
    mounts: Iterable[cri.Mount] = (),
    attempt: int = 0,
    target_id: str = "",
    user_specified_image: str | None = None,
) -> cri.ContainerConfig:
    """The configuration of one container, `attempt` starting with 0.

    `target_id`: the id of the container that an ephemeral one targets. Raises ConfigError where its user
    breaks runAsNonRoot, or its stop signal is none that the CRI knows; CreateError where an argument refers
    to a variable that is no text.
    """
    words = container.image or "" if user_specified_image is None else user_specified_image
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=attempt),
        image=cri.ImageSpec(image=image.id, user_specified_image=words),
        command=[_argument(one, environment) for one in container.command or []],
        args=[_argument(one, environment) for one in container.args or []],
        working_dir=container.workingDir or "",
        envs=[cri.KeyValue(key=key, value=_bytes(value)) for key, value in environment.items()],
        mounts=mounts,
        labels={"io.kubernetes.container.name": container.name, **identity(manifest)},
        annotations=_annotations(manifest, container, attempt),
        log_path=f"{container.name}/{attempt}.log",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdinOnce),
        tty=bool(container.tty),
        stop_signal=_stop_signal(container),
        linux=cri.LinuxContainerConfig(
            resources=resources.container_resources(manifest, container, node),
            security_context=security.of_container(
                manifest, container, image, node, facts, target_id=target_id
            ),
        ),
    )


def container_hash(container: AnyContainer) -> str:
    """What tells a kubelet that a container's image changed: a hash of its image and name alone, the same
    number that a kubelet of 1.36 computes."""
    text = _go_text({"image": container.image or "", "name": container.name})
    # The kubelet hashes how Go prints the bytes.
    printed = "([]uint8)[" + " ".join(str(one) for one in text.encode()) + "]"
    value = _FNV_OFFSET
    for byte in printed.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return f"{value:x}"


def _argument(text: str, environment: Mapping[str, str]) -> str:
    expanded = env.expand(text, environment)
    try:
        expanded.encode()
    except UnicodeEncodeError as error:
        # A kubelet fails as it writes the call down.
        raise CreateError(f"the argument {text!r} would not be UTF-8: a CRI takes only text there") from error
    return expanded


def _bytes(value: str) -> bytes:
    """A variable may hold any bytes, as Secrets do."""
    return value.encode(errors="surrogateescape")


def _annotations(manifest: Manifest, container: AnyContainer, attempt: int) -> dict[str, str]:
    found = {
        HASH: container_hash(container),
        "io.kubernetes.container.restartCount": str(attempt),
        "io.kubernetes.container.terminationMessagePath": container.terminationMessagePath or "",
        "io.kubernetes.container.terminationMessagePolicy": container.terminationMessagePolicy or "",
        "io.kubernetes.pod.terminationGracePeriod": str(manifest.grace),
    }
    if container.lifecycle is not None and container.lifecycle.preStop is not None:
        found["io.kubernetes.container.preStopHandler"] = _go_json(container.lifecycle.preStop)
    if container.ports:
        ports: list[dict[str, Any]] = [
            {key: getattr(port, key) for key in _PORT_FIELDS if getattr(port, key)}
            for port in container.ports
        ]
        found["io.kubernetes.container.ports"] = _go_json(ports)
    return found


def _go_json(value: object) -> str:
    """JSON as Go writes it: members in the order of the API's structures, some characters escaped."""
    return _go_text(_ordered(msgspec.to_builtins(value)))


def _go_text(tree: object) -> str:
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    for plain, escaped in _GO_ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _ordered(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_ordered(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    places = {name: at for at, name in enumerate(_GO_ORDER)}
    return {key: _ordered(tree[key]) for key in sorted(tree, key=lambda one: places.get(one, len(places)))}


def _stop_signal(container: AnyContainer) -> str:
    name = container.lifecycle.stopSignal if container.lifecycle is not None else None
    if name and name not in signals.BY_NAME:
        raise ConfigError(f"container {container.name!r}: the CRI knows no stop signal {name}")
    return signals.BY_NAME[name] if name else signals.DEFAULT
