"""Write a .proto file from a table of rpcs, fields and enum values, and generate its Python modules.

The table is tab separated with the columns kind, package, parent, number, name, type, note:

    rpc      the service is `parent`, the method `name`, `type` is "Request -> [stream ]Response"
    message  an empty message; its name is in `parent` (or in `name` when `parent` is empty)
    field    a field of the message `parent`; `type` may start with "repeated" or be "map<K,V>"
    enum     a value of the enum `parent`

A parent with a dot is nested in the message before the dot. Run it as

    python tools/write_protos.py TABLE.tsv cri

which writes src/podwright/wire/cri.proto and, beside it, the modules cri_pb2.py, cri_pb2.pyi and
cri_pb2_grpc.py. The output is committed, so that installing podwright needs no compiler.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

WIRE = Path(__file__).resolve().parent.parent / "src" / "podwright" / "wire"


@dataclass
class Message:
    fields: list[tuple[int, str]] = field(default_factory=list)
    enums: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    nested: dict[str, Message] = field(default_factory=dict)


@dataclass
class Table:
    package: str
    services: dict[str, list[str]]
    enums: dict[str, list[tuple[int, str]]]
    messages: dict[str, Message]


def read_table(path: Path) -> Table:
    """Read the table at `path`; a row that cannot be understood is a ValueError with its line number."""
    table = Table("", defaultdict(list), defaultdict(list), {})
    rows: list[tuple[int, dict[str, str]]] = []
    with path.open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
            rows.append((number, {key: (value or "").strip() for key, value in row.items() if key}))
    packages = {row["package"] for _, row in rows}
    if len(packages) != 1:
        raise ValueError(f"{path}: one package expected, found {sorted(packages)}")
    table.package = packages.pop()
    # Messages first: an enum is nested when its parent names a message.
    for _, row in rows:
        if row["kind"] in ("message", "field"):
            _message(table, row["parent"] or row["name"])
    for number, row in rows:
        kind, parent = row["kind"], row["parent"]
        if kind == "rpc":
            request, _, response = row["type"].partition(" -> ")
            table.services[parent].append(f"rpc {row['name']}({request}) returns ({response});")
        elif kind == "field":
            _message(table, parent).fields.append((int(row["number"]), _field_line(row)))
        elif kind == "enum":
            outer, _, inner = parent.rpartition(".")
            values = _message(table, outer).enums.setdefault(inner, []) if outer else table.enums[parent]
            values.append((int(row["number"]), row["name"]))
        elif kind != "message":
            raise ValueError(f"{path}:{number}: unknown kind {kind!r}")
    return table


def _message(table: Table, name: str) -> Message:
    first, *rest = name.split(".")
    message = table.messages.setdefault(first, Message())
    for part in rest:
        message = message.nested.setdefault(part, Message())
    return message


def _field_line(row: dict[str, str]) -> str:
    kind = row["type"].replace(",", ", ") if row["type"].startswith("map<") else row["type"]
    option = " [deprecated = true]" if "deprecated" in row["note"] else ""
    return f"{kind} {row['name']} = {row['number']}{option};"


def write_proto(table: Table, source: str) -> str:
    """The .proto text of `table`."""
    lines = [
        f"// Written by tools/write_protos.py from {source}. Do not edit.",
        'syntax = "proto3";',
        "",
        f"package {table.package};",
    ]
    for service, methods in table.services.items():
        lines += ["", f"service {service} {{", *(f"  {method}" for method in methods), "}"]
    for name, values in table.enums.items():
        lines += ["", *_enum_lines(name, values, "")]
    for name, message in table.messages.items():
        lines += ["", *_message_lines(name, message, "")]
    return "\n".join(lines) + "\n"


def _enum_lines(name: str, values: list[tuple[int, str]], indent: str) -> list[str]:
    # proto3 wants the zero value first; the rest keeps the order of the numbers.
    body = [f"{indent}  {value} = {number};" for number, value in sorted(values)]
    return [f"{indent}enum {name} {{", *body, f"{indent}}}"]


def _message_lines(name: str, message: Message, indent: str) -> list[str]:
    if not (message.fields or message.enums or message.nested):
        return [f"{indent}message {name} {{}}"]
    lines = [f"{indent}message {name} {{"]
    for inner, values in message.enums.items():
        lines += _enum_lines(inner, values, indent + "  ")
    for inner, child in message.nested.items():
        lines += _message_lines(inner, child, indent + "  ")
    lines += [f"{indent}  {line}" for _, line in sorted(message.fields)]
    return [*lines, f"{indent}}}"]


def generate_modules(proto: Path) -> None:
    """Run the protobuf compiler of grpcio-tools on `proto`; the modules land beside it."""
    from grpc_tools import protoc

    # The include root is src/, so that the generated import is the package's own path.
    root = WIRE.parent.parent
    status = protoc.main(
        [
            "protoc",
            f"-I{root}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            str(proto.relative_to(root)),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed on {proto} with status {status}")


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit("usage: write_protos.py TABLE.tsv NAME")
    source, name = Path(arguments[0]), arguments[1]
    proto = WIRE / f"{name}.proto"
    proto.write_text(write_proto(read_table(source), source.name))
    generate_modules(proto)
    print(f"wrote {proto} and its modules")


if __name__ == "__main__":
    main(sys.argv[1:])
