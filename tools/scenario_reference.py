"""Write docs/scenario.md: the reference of scenarios, made of the classes that are their schema.

Run it after a change of podwright/engines/fake:

    python tools/scenario_reference.py

A test fails while the document is not what this writes.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import msgspec

from podwright.engines.fake import curves, faults, registry, scenario, subject, values
from podwright.engines.fake.programs import NAMES

TARGET = Path(__file__).resolve().parent.parent / "docs" / "scenario.md"
WIDTH = 108

INTRODUCTION = """\
# Scenarios

A scenario says what happens on a fake node: which images there are, what containers do, what goes wrong. It
is a YAML document; a commented one is [examples/scenario.yaml](../examples/scenario.yaml). Everything in it
may be left out: an empty scenario is a node on which every image can be pulled and everything works.

`podwright serve --engine fake` reads it from a file. Tests in Python give the same as a dictionary, or make
it of the classes named here (`podwright.engines.fake.scenario`). Unknown keys are refused, and an error names
the path to what is wrong: `scenario.containers[2].exit.after`.

With a `seed` other than 0 and a virtual clock, the same calls in the same order give the same ids, times and
faults. Words such as `on` and `yes` are texts here, as in YAML 1.2; only `true` and `false` are not.

This file is written by `tools/scenario_reference.py`.
"""

STRUCTS: tuple[type[msgspec.Struct], ...] = (
    scenario.Scenario,
    scenario.HandlerScript,
    scenario.AddressScript,
    registry.ImagesScript,
    registry.ImageScript,
    registry.ImageConfig,
    subject.Match,
    scenario.SandboxScript,
    scenario.PortScript,
    scenario.NetworkUsageScript,
    scenario.ContainerScript,
    scenario.ExitScript,
    scenario.LogScript,
    scenario.ExecScript,
    scenario.UsageScript,
    faults.Fault,
    faults.FaultError,
)
AMOUNTS: tuple[type, ...] = (values.Span, values.Size, values.Rate, curves.Curve)

_PLAIN = {
    "str": "text",
    "int": "number",
    "Count": "number",
    "Code": "number",
    "float": "number",
    "bool": "true or false",
    "datetime.datetime": "moment",
}


def reference() -> str:
    """The document."""
    parts = [
        INTRODUCTION,
        *map(_struct, STRUCTS),
        "## Amounts\n",
        *map(_amount, AMOUNTS),
        _places(),
        _programs(),
    ]
    return "\n".join(parts)


def _struct(kind: type[msgspec.Struct]) -> str:
    lines = [f"## {kind.__name__}", "", _words(inspect.getdoc(kind) or ""), ""]
    words_of = described(kind)
    for field in msgspec.structs.fields(kind):
        annotation, words = words_of[field.name]
        facts = [_type(annotation), *_default(field)]
        lines.append(_item(f"`{field.encode_name}` ({', '.join(facts)})" + (f": {words}" if words else "")))
    return "\n".join([*lines, ""])


def described(kind: type) -> dict[str, tuple[str, str]]:
    """The annotation and the words below each field, from the source: no object keeps the latter."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, tuple[str, str]] = {}
    name = ""
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                found[name] = (ast.unparse(annotation), "")
            case ast.Expr(value=ast.Constant(value=str(words))) if name:
                found[name] = (found[name][0], inspect.cleandoc(words).replace("\n", " "))
                name = ""
            case _:
                name = ""
    return found


def _type(annotation: str) -> str:
    annotation = annotation.removesuffix(" | None")
    if match := re.fullmatch(r"Annotated\[([\w.]+), .*\]", annotation):
        return _type(match[1])
    if match := re.fullmatch(r"list\[(.+)\]", annotation):
        return f"list of {_type(match[1])}"
    if annotation == "dict[str, dict[str, str]]":
        return "empty map by name"
    if match := re.fullmatch(r"dict\[str, (.+)\]", annotation):
        return f"{_type(match[1])} by name"
    if match := re.fullmatch(r"Literal\[(.+)\]", annotation):
        *others, last = [f"`{each.strip(chr(39))}`" for each in match[1].split(", ")]
        return f"{', '.join(others)} or {last}"
    known = {kind.__name__ for kind in (*STRUCTS, *AMOUNTS)}
    return f"[{annotation}](#{annotation.lower()})" if annotation in known else _PLAIN[annotation]


def _default(field: msgspec.structs.FieldInfo) -> list[str]:
    """What holds when it is not given, where that is worth a word."""
    if field.required:
        return ["required"]
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value, enc_hook=lambda amount: amount.tree())
    elif isinstance(value, AMOUNTS):
        value = value.tree()  # type: ignore[attr-defined]
    elif isinstance(value, dict):
        value = {key: {} for key in value}
    if value in (None, "", 0, False) or value == [] or value == {}:
        return []
    return [f"default `{msgspec.json.encode(value).decode()}`"]


def _amount(kind: type) -> str:
    lines = (inspect.getdoc(kind) or "").splitlines()
    return "\n".join([f"### {kind.__name__}", "", *lines, ""])


def _places() -> str:
    return "\n".join(
        [
            "## Places",
            "",
            "Where faults can strike (`on`).",
            "",
            _item(f"Calls: {_names(faults.RPCS)}"),
            _item(f"Steps of the engine: {_names(faults.STEPS)}"),
            _item(f"Events: {_names(faults.EVENTS)}"),
            "",
        ]
    )


def _programs() -> str:
    words = (
        f"What containers and execs can run: {_names(sorted(NAMES))}. Whatever else a container"
        " is told to run does nothing until a signal ends it; see `unknown_programs`."
    )
    return "\n".join(["## Programs", "", _words(words), ""])


def _names(names: object) -> str:
    assert isinstance(names, (tuple, list))
    return ", ".join(f"`{name}`" for name in names)


def _words(text: str) -> str:
    return "\n\n".join(textwrap.fill(part, WIDTH, break_on_hyphens=False) for part in text.split("\n\n"))


def _item(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(reference())
