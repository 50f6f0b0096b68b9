"""The signature policy (containers-policy.json(5)), asked before any blob is fetched."""

from __future__ import annotations

import json
from pathlib import Path

from podwright.images.access import Access

ANYTHING = [{"type": "insecureAcceptAnything"}]


def accepts_anything(policy: Path) -> bool:
    """Whether the signature policy lets every image in."""
    try:
        tree = json.loads(policy.read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(tree, dict) or tree.get("default") != ANYTHING:
        return False
    scopes = [scope for transport in (tree.get("transports") or {}).values() for scope in transport.values()]
    return all(scope == ANYTHING for scope in scopes)


async def check(access: Access, manifest_digest: str) -> None:
    """SignatureValidationFailed unless the policy lets the image in."""
    raise NotImplementedError
