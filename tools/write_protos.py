"""Write .proto files from a table of rpcs, fields and enum values, and generate their Python modules.

The table is tab separated with the columns kind, package, parent, number, name, type, note:

    rpc      the service is `parent`, the method `name`, `type` is "Request -> [stream ]Response"
    message  an empty message; its name is in `parent` (or in `name` when `parent` is empty)
    field    a field of the message `parent`; `type` may start with "repeated" or be "map<K,V>"
    enum     a value of the enum `parent`

A parent with a dot is nested in the message before the dot. Run it as

    python tools/write_protos.py TABLE.tsv cri

which writes src/podwright/wire/cri.proto and, beside it, the modules cri_pb2.py, cri_pb2.pyi and
cri_pb2_grpc.py. A table with several packages becomes a directory with a file for each:

    python tools/write_protos.py TABLE.tsv containerd

writes src/podwright/wire/containerd/tasks.proto for "containerd.services.tasks.v1" and so on (see
`file_name`). The output is committed, so that installing podwright needs no compiler.
"""

from __future__ import annotations

import csv
import re
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WELL_KNOWN = {
    "google.protobuf.Any": "google/protobuf/any.proto",
    "google.protobuf.Empty": "google/protobuf/empty.proto",
    "google.protobuf.FieldMask": "google/protobuf/field_mask.proto",
    "google.protobuf.Timestamp": "google/protobuf/timestamp.proto",
    "google.rpc.Status": "google/rpc/status.proto",
}
STATUS_ROOT = Path(sysconfig.get_path("purelib"))
"""Where the package googleapis-common-protos has google/rpc."""
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


Row = tuple[int, dict[str, str]]
"""A line's number and its columns."""


def read_tables(path: Path) -> list[Table]:
    """Read the table at `path`, a Table for each package; a row that cannot be understood is a ValueError
    with its line number."""
    rows: dict[str, list[Row]] = defaultdict(list)
    with path.open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
            columns = {key: (value or "").strip() for key, value in row.items() if key}
            rows[columns["package"]].append((number, columns))
    return [_read_package(path, package, rows[package]) for package in rows]


def _read_package(path: Path, package: str, rows: list[Row]) -> Table:
    table = Table(package, defaultdict(list), defaultdict(list), {})
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


def file_name(package: str) -> str:
    """Of a package's file, when there are several: its own word. Types that only others' services carry have
    a name that says so."""
    words = [word for word in package.split(".") if word not in ("containerd", "services", "v1")]
    if package == "containerd.v1.types":
        return "task_types"
    if package == "containerd.events":
        return "event_types"
    if package.startswith("io.containerd.cgroups."):
        return f"metrics_{package.rpartition('.')[2]}"
    return "_".join(reversed(words))


def write_proto(table: Table, source: str, imports: Iterable[str] = ()) -> str:
    """The .proto text of `table`."""
    lines = [
        f"// Written by tools/write_protos.py from {source}. Do not edit.",
        'syntax = "proto3";',
        "",
        f"package {table.package};",
        *(["", *(f'import "{each}";' for each in imports)] if imports else []),
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


def find_imports(table: Table, places: dict[str, str]) -> list[str]:
    """The files that `table` needs: `places` has the file of each package."""
    text = write_proto(table, "")
    found = set()
    for package, place in places.items():
        # A type of the package, not one of a package below it.
        if package != table.package and re.search(rf"(?<![\w.]){re.escape(package)}\.[A-Z]", text):
            found.add(place)
    found |= {place for word, place in WELL_KNOWN.items() if word in text}
    return sorted(found)


def generate_modules(protos: list[Path]) -> None:
    """Run the protobuf compiler of grpcio-tools on `protos`; the modules land beside them."""
    import grpc_tools
    from grpc_tools import protoc

    # The include root is src/, so that the generated import is the package's own path.
    root = WIRE.parent.parent
    status = protoc.main(
        [
            "protoc",
            f"-I{root}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"-I{STATUS_ROOT}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            *(str(proto.relative_to(root)) for proto in protos),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed on {', '.join(map(str, protos))} with status {status}")


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit("usage: write_protos.py TABLE.tsv NAME")
    source, name = Path(arguments[0]), arguments[1]
    tables = read_tables(source)
    if len(tables) == 1:
        files = {tables[0].package: WIRE / f"{name}.proto"}
    else:
        (WIRE / name).mkdir(exist_ok=True)
        files = {each.package: WIRE / name / f"{file_name(each.package)}.proto" for each in tables}
    root = WIRE.parent.parent
    places = {package: str(file.relative_to(root)) for package, file in files.items()}
    for table in tables:
        files[table.package].write_text(write_proto(table, source.name, find_imports(table, places)))
    generate_modules(list(files.values()))
    for table in tables:
        if not table.services:
            files[table.package].with_name(f"{files[table.package].stem}_pb2_grpc.py").unlink()
    print(f"wrote {', '.join(map(str, files.values()))} and their modules")


if __name__ == "__main__":
    main(sys.argv[1:])
