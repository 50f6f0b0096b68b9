"""A spec as the bytes of config.json."""

from __future__ import annotations

import msgspec

from podwright.spec.draft import Json


def encode(spec: dict[str, Json]) -> bytes:
    return msgspec.json.encode(spec)
