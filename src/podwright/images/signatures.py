"""The signature policy (containers-policy.json(5)), asked before any blob is fetched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from podwright.errors import SignatureValidationFailed
from podwright.images.access import Access, platform_options
from podwright.images.attempts import failure, fatal_words
from podwright.images.documents import Manifest
from podwright.images.loopback import Request, Response, listening
from podwright.images.platform import Platform
from podwright.linux import spawn

MAX_LOG = 1 << 20
"""Bytes of skopeo's debug log that are read."""
ANYTHING = [{"type": "insecureAcceptAnything"}]


def accepts_anything(policy: Path) -> bool:
    """Whether the signature policy lets every image in."""
    try:
        tree = json.loads(policy.read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(tree, dict) or tree.get("default") != ANYTHING:
        return False
    transports = tree.get("transports", {})
    if not isinstance(transports, dict) or not all(isinstance(each, dict) for each in transports.values()):
        return False
    return all(scope == ANYTHING for scopes in transports.values() for scope in scopes.values())


async def check(access: Access, manifest_digest: str, document: Manifest, platform: Platform | None) -> None:
    """SignatureValidationFailed unless the policy lets the manifest in under the name that was asked for.

    skopeo judges in the course of a copy, so it copies: to a registry that has all blobs already and takes no
    manifest but this one. So nothing but the manifest and the configuration is fetched, and what was judged
    is what was resolved, although a tag may have moved meanwhile.
    """
    sizes = {each.digest: each.size for each in (document.config, *document.layers)}
    taken: list[str] = []

    async def answer(request: Request) -> Response:
        place = request.target.partition("?")[0]
        if "/blobs/" in place and request.method == "HEAD":
            size = sizes.get(place.rpartition("/")[2], 0)
            return Response(200, [("Content-Length", str(size))])
        if "/manifests/" in place and request.method == "PUT":
            taken.append(f"sha256:{hashlib.sha256(request.body).hexdigest()}")
            return Response(201 if taken[-1] == manifest_digest else 400)
        return Response(200 if place == "/v2/" else 404)

    async with listening(answer) as port:
        command = ["skopeo", "--debug", *access.options, *platform_options(platform), "copy", "--quiet"]
        command += ["--preserve-digests", "--remove-signatures", "--src-authfile", str(access.authfile)]
        command += [*access.tls("--src-tls-verify"), "--dest-no-creds", "--dest-tls-verify=false"]
        command += [access.name, f"docker://127.0.0.1:{port}/judged:x"]
        done = await spawn.run(command, env=access.environment, limit=MAX_LOG)
    log = done.stderr.decode(errors="replace")
    if done.status == 0 and manifest_digest in taken:
        return
    others = [digest for digest in taken if digest != manifest_digest]
    if others or done.status == 0:
        raise SignatureValidationFailed(
            f"{access.about}: {manifest_digest} is to be fetched, but the name leads to "
            f"{others[0] if others else 'nothing'} now: try again"
        )
    raise failure(fatal_words(log) or f"skopeo ended with status {done.status}", log, access)
