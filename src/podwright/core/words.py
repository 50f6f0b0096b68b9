"""JSON texts for the verbose parts of statuses."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
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


def for_protobuf(tree: Json, message: Message) -> Json:
    """What `as_asked` gave of such a message, or a file for crictl has, in protobuf's own JSON, where bytes
    are base64. A text is meant as it stands, also one that happens to be base64 (KeyValue.UnmarshalJSON of
    k8s.io/cri-api). What is of another shape is left for the parser to refuse."""
    return _in_base64(tree, cast(Descriptor, message.DESCRIPTOR))


def _in_base64(tree: Json, kind: Descriptor) -> Json:
    if not isinstance(tree, dict):
        return tree
    fields = {name: field for field in kind.fields for name in (field.name, field.json_name)}
    return {name: _parsable(fields.get(name), value) for name, value in tree.items()}


def _parsable(field: FieldDescriptor | None, value: Json) -> Json:
    if field is None:
        return value
    if isinstance(value, list):
        return [_parsable(field, each) for each in value]
    if field.message_type is not None:
        return value if field.message_type.GetOptions().map_entry else _in_base64(value, field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
        return base64.b64encode(value.encode()).decode()
    return value


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
