"""JSON texts for the verbose parts of statuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
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
    """A configuration as the client sent it, in the form that crictl reads and prints (that of k8s.io/cri-api
    in Go): fields that are not set are left out, numbers of 64 bits are numbers, values of variables text."""
    return {field.name: _shown(field, value) for field, value in config.ListFields()}


def _shown(field: FieldDescriptor, value: Any) -> Json:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _single(inner, each) for key, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Message):
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Json:
    if isinstance(value, Message):
        return as_asked(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else int(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value
