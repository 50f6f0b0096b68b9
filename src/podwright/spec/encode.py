"""A spec as the bytes of config.json."""

from __future__ import annotations

import json

import msgspec

from podwright.spec.draft import Json


def encode(spec: dict[str, Json]) -> bytes:
    """JSON of `spec`. Environment values that are not UTF-8 go in as their raw bytes, which is the only way
    to hand them through to the process unharmed."""
    try:
        return msgspec.json.encode(spec)
    except UnicodeEncodeError:
        return json.dumps(spec, ensure_ascii=False).encode("utf-8", "surrogateescape")
