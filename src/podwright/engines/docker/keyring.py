"""Credentials of the configured authfile (containers-auth.json(5)), for pulls that bring none of their own.

The oci engine leaves that file to skopeo; a Docker Engine has none, it is told credentials with each pull.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from podwright.engines.base import Credentials
from podwright.errors import FailedPrecondition
from podwright.images.references import Reference
from podwright.linux import spawn

HELPER_TIMEOUT = 30.0
"""Seconds."""


class Keyring:
    def __init__(self, authfile: str) -> None:
        self._file = authfile

    async def credentials(self, name: Reference) -> tuple[Credentials | None, str]:
        """Those of the longest beginning of `name` that has some, and where they come from.

        Raises FailedPrecondition when the file, or a helper that it names, cannot be used.
        """
        if not self._file:
            return None, "none"
        tree = self._tree()
        entries = {_plain(key): value for key, value in (tree.get("auths") or {}).items()}
        for place in _places(name):
            if isinstance(entry := entries.get(place), dict) and (found := _decoded(entry)) is not None:
                return found, f"images.authfile {self._file}"
        helper = (tree.get("credHelpers") or {}).get(name.domain) or tree.get("credsStore")
        if helper:
            found = await self._asked(str(helper), name.domain)
            if found is not None:
                return found, f"credential helper {helper}"
        return None, "none"

    def _tree(self) -> Mapping[str, Any]:
        try:
            return msgspec.json.decode(Path(self._file).read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise FailedPrecondition(f"images.authfile: {self._file}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise FailedPrecondition(f"images.authfile: {self._file}: {error}") from error

    async def _asked(self, helper: str, domain: str) -> Credentials | None:
        program = f"docker-credential-{helper}"
        try:
            done = await spawn.run([program, "get"], input=domain.encode(), timeout=HELPER_TIMEOUT)
        except FileNotFoundError as error:
            raise FailedPrecondition(f"images.authfile: {program} is not installed") from error
        if done.status != 0:
            return None  # it has none for this registry; helpers have no other way to say so
        answer = msgspec.json.decode(done.stdout, type=dict[str, str])
        user, secret = answer.get("Username", ""), answer.get("Secret", "")
        return Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret)


def _places(name: Reference) -> Iterator[str]:
    """The repository, each namespace above it, the registry."""
    place = name.repository
    while place:
        yield place
        place = place.rpartition("/")[0]


def _plain(key: str) -> str:
    """Older files name a registry by its address."""
    place = key.partition("://")[2] or key
    host, _, path = place.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        return "docker.io"
    return host if path in ("", "v1/", "v2/", "v1", "v2") else place.rstrip("/")


def _decoded(entry: Mapping[str, Any]) -> Credentials | None:
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=str(token))
    try:
        user, colon, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return Credentials(user, password) if colon else None
