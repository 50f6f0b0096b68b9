"""What the files of configMap, secret, downwardAPI and projected volumes hold. Pure.

All errors are ValueErrors in the kubelet's words, or InvalidArgument where a field cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection
from podwright.kube.node import Node, PodFacts
from podwright.kube.volumes import downward
from podwright.kube.volumes.atomic_writer import File

MODE = 0o644
TOKEN_MODE = 0o600
"""Of a token whose owner or group is the pod's: nobody else reads it."""
TOKEN_SECRET = "kubernetes.io/service-account-token"

_NO_CONFIG = "configmap references non-existent config key"
_NO_SECRET = "references non-existent secret key"


def files(volume: Volume, manifest: Manifest, node: Node, facts: PodFacts) -> dict[str, File]:
    """The files of the volume, by path."""
    if (source := volume.configMap) is not None:
        keys = _config_map(manifest, source.name or "", bool(source.optional))
        return _chosen(keys, source.items or [], _mode(source.defaultMode), bool(source.optional), _NO_CONFIG)
    if (secret := volume.secret) is not None:
        keys = _secret(manifest, secret.secretName or "", bool(secret.optional))
        return _chosen(keys, secret.items or [], _mode(secret.defaultMode), bool(secret.optional), _NO_SECRET)
    if (about := volume.downwardAPI) is not None:
        return downward.files(about.items or [], _mode(about.defaultMode), manifest, node, facts)
    assert volume.projected is not None
    mode = _mode(volume.projected.defaultMode)
    found: dict[str, File] = {}
    faults = []
    for projection in volume.projected.sources or []:
        try:
            found.update(_projected(projection, mode, manifest, node, facts))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(faults[0] if len(faults) == 1 else f"[{', '.join(dict.fromkeys(faults))}]")
    return found


def owner(manifest: Manifest) -> int | None:
    """The uid that all containers of the pod run with; None when they differ or the images decide."""
    pod = manifest.spec.securityContext
    default = pod.runAsUser if pod is not None else None
    users = set()
    for container in [*manifest.init_containers, *manifest.containers]:
        own = container.securityContext.runAsUser if container.securityContext is not None else None
        users.add(default if own is None else own)
    return users.pop() if len(users) == 1 else None


def _projected(
    projection: VolumeProjection, mode: int, manifest: Manifest, node: Node, facts: PodFacts
) -> dict[str, File]:
    if (source := projection.configMap) is not None:
        keys = _config_map(manifest, source.name or "", bool(source.optional))
        return _chosen(keys, source.items or [], mode, bool(source.optional), _NO_CONFIG)
    if (secret := projection.secret) is not None:
        keys = _secret(manifest, secret.name or "", bool(secret.optional))
        return _chosen(keys, secret.items or [], mode, bool(secret.optional), _NO_SECRET)
    if (about := projection.downwardAPI) is not None:
        return downward.files(about.items or [], mode, manifest, node, facts)
    if (token := projection.serviceAccountToken) is not None:
        return _token(token, mode, manifest)
    named = [name for name in projection.__struct_fields__ if getattr(projection, name) is not None]
    if named:
        raise ValueError(f"a projected source {named[0]} cannot be had without an API server")
    return {}


def _config_map(manifest: Manifest, name: str, optional: bool) -> Mapping[str, bytes]:
    found = manifest.objects.config_map(manifest.namespace, name)
    if found is None and not optional:
        raise ValueError(f'configmap "{name}" not found')
    return {} if found is None else found.files


def _secret(manifest: Manifest, name: str, optional: bool) -> Mapping[str, bytes]:
    found = manifest.objects.secret(manifest.namespace, name)
    if found is None and not optional:
        raise ValueError(f'secret "{name}" not found')
    return {} if found is None else found.files


def _chosen(
    keys: Mapping[str, bytes], items: Sequence[KeyToPath], mode: int, optional: bool, missing: str
) -> dict[str, File]:
    if not items:
        return {key: File(data, mode) for key, data in keys.items()}
    found = {}
    for item in items:
        if item.key in keys:
            found[item.path] = File(keys[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise ValueError(f"{missing}: {item.key}")
    return found


def _token(source: ServiceAccountTokenProjection, mode: int, manifest: Manifest) -> dict[str, File]:
    """A token that the stream brings along: nothing here can issue one that an API server would take."""
    account = manifest.spec.serviceAccountName or "default"
    for (namespace, _), secret in sorted(manifest.objects.secrets.items()):
        fits = namespace == manifest.namespace and secret.type == TOKEN_SECRET and "token" in secret.data
        if fits and secret.account in ("", account):
            break
    else:
        raise ValueError(
            "failed to fetch token: there is no API server that could issue one for service account "
            f"{account!r}, and no Secret of type {TOKEN_SECRET} for it beside the Pod"
        )
    context = manifest.spec.securityContext
    user = owner(manifest)
    if user is not None or (context is not None and context.fsGroup is not None):
        mode = TOKEN_MODE
    return {source.path: File(secret.data["token"], mode, user)}


def _mode(given: int | None) -> int:
    return MODE if given is None else given
