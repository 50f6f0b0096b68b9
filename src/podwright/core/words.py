"""JSON texts for the verbose parts of statuses."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podwright.engines.base import Json


def json_texts(values: Mapping[str, Json]) -> dict[str, str]:
    """The `info` of a verbose answer. What there is to tell of one object belongs under the one key "info",
    where clients of every runtime look for it: `crictl inspect ID | jq .info.pid`."""
    return {
        key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for key, value in values.items()
    }
