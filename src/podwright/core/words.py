"""JSON texts for the verbose parts of statuses."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from podwright.engines.base import Json


def json_texts(values: Mapping[str, Json]) -> dict[str, str]:
    """The `info` of a verbose answer. What there is to tell of one object belongs under the one key "info",
    where clients of every runtime look for it: `crictl inspect ID | jq .info.pid`."""
    return {
        key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for key, value in values.items()
    }


def as_asked(config: Message) -> Json:
    """A configuration as the client sent it, in the form that crictl reads; fields that are not set are left
    out."""
    return MessageToDict(config, preserving_proto_field_name=True)
