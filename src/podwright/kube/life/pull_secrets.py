"""Which credentials a pull gets from a pod's imagePullSecrets: docker's configuration files in Secrets, and
how their keys fit an image's name. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from podwright.errors import InvalidArgument
from podwright.images import references
from podwright.kube.manifests.manifest import Manifest
from podwright.wire import cri_pb2 as cri

JSON_TYPE, JSON_KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
OLD_TYPE, OLD_KEY = "kubernetes.io/dockercfg", ".dockercfg"
DOCKER_HUB = ("docker.io", "index.docker.io")


def missing(manifest: Manifest) -> list[str]:
    """The names of the pull secrets that are not there."""
    return [
        one.name or ""
        for one in manifest.spec.imagePullSecrets or []
        if manifest.objects.secret(manifest.namespace, one.name or "") is None
    ]


def credentials(manifest: Manifest, image: str) -> list[cri.AuthConfig]:
    """Those for `image`, the most specific key first; none: it is pulled anonymously."""
    try:
        parsed = references.parse(image)
    except InvalidArgument:
        return []
    name = str(parsed).partition("@")[0]
    found = [(key, auth) for key, auth in _entries(manifest) if any(_fits(key, one) for one in _names(name))]
    found.sort(key=lambda pair: pair[0], reverse=True)
    answer: list[cri.AuthConfig] = []
    for _, auth in found:
        if auth not in answer:
            answer.append(auth)
    return answer


def _names(name: str) -> Sequence[str]:
    host, _, path = name.partition("/")
    return [f"{one}/{path}" for one in DOCKER_HUB] if host in DOCKER_HUB else [name]


def _entries(manifest: Manifest) -> Iterator[tuple[str, cri.AuthConfig]]:
    for one in manifest.spec.imagePullSecrets or []:
        secret = manifest.objects.secret(manifest.namespace, one.name or "")
        if secret is None:
            continue
        if secret.type == JSON_TYPE:
            tree = _tree(secret.data.get(JSON_KEY, b"")).get("auths")
        elif secret.type == OLD_TYPE:
            tree = _tree(secret.data.get(OLD_KEY, b""))
        else:
            continue
        for key, entry in (tree if isinstance(tree, dict) else {}).items():
            if isinstance(entry, dict):
                yield _normal(key), _auth(entry)


def _tree(text: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _auth(entry: Mapping[str, Any]) -> cri.AuthConfig:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    try:
        pair = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    if ":" in pair:
        username, _, password = pair.partition(":")
    return cri.AuthConfig(username=username, password=password)


def _normal(key: str) -> str:
    """ "https://index.docker.io/v1/" is "index.docker.io"."""
    key = key.partition("://")[2] if "://" in key else key
    host, _, path = key.partition("/")
    path = path.strip("/")
    for version in ("v1", "v2"):
        path = "" if path == version else path.removeprefix(version + "/")
    return f"{host}/{path}" if path else host


def _fits(key: str, name: str) -> bool:
    """Whether a key ("registry.example", "*.example:5000/team") is for an image's full name. A star stands
    for one part of the host's name."""
    host, _, path = key.partition("/")
    image_host, _, image_path = name.partition("/")
    parts, image_parts = host.split("."), image_host.split(".")
    return (
        len(parts) == len(image_parts)
        and all(fnmatchcase(one, pattern) for pattern, one in zip(parts, image_parts, strict=True))
        and image_path.startswith(path)
    )
