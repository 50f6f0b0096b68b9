"""explain of a container that exists: what was asked, what was given, and what the kernel shows now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from podwright.cli import explain_table as out
from podwright.cli.explain_bench import Bench, explain_one
from podwright.cli.explain_options import Options
from podwright.cli.explain_showing import CUT, below
from podwright.cli.explain_sources import CriSource, value_at
from podwright.cli.explain_words import ABSENT, words
from podwright.cli.find import find
from podwright.cli.output import Format, short
from podwright.cli.output import json as print_json
from podwright.engines.base import Explanation
from podwright.errors import FailedPrecondition
from podwright.house import NODE_ENGINES
from podwright.spec.places import origin, places
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door

DIFFERS = "≠"


@dataclass(frozen=True, slots=True)
class Existing:
    """A container as its server tells of it."""

    id: str
    title: str
    state: str
    source: CriSource
    pid: int
    engine: str
    given: Mapping[str, Any] | None
    """The spec in its bundle."""


@dataclass(frozen=True, slots=True)
class Row:
    path: str
    asked: str
    given: Any
    seen: Any
    """None: the kernel does not show it, or nobody looked."""
    agrees: bool = True


async def source_of(runtime: Cri, word: str) -> Existing:
    """What there is to know of the container that `word` names. FailedPrecondition when its server does not
    tell how it was configured."""
    found = await find(runtime, word, ("container",))
    answer = await runtime.container_status(cri.ContainerStatusRequest(container_id=found.id, verbose=True))
    pod = await runtime.pod_sandbox_status(
        cri.PodSandboxStatusRequest(pod_sandbox_id=found.sandbox, verbose=True)
    )
    info, pod_info = _info(answer.info), _info(pod.info)
    if "config" not in info or "config" not in pod_info:
        raise FailedPrecondition(
            f"container {found.title}: its server does not tell how it was configured"
            " (verbose ContainerStatus, info.config)"
        )
    config = dict(info["config"])
    resources = answer.status.resources.linux
    if resources.ByteSize() and isinstance(config.get("linux"), dict):
        # UpdateContainerResources has the last word.
        from podwright.core.words import as_asked

        config["linux"] = {**config["linux"], "resources": as_asked(resources)}
    return Existing(
        id=found.id,
        title=found.title,
        state=cri.ContainerState.Name(answer.status.state).removeprefix("CONTAINER_").lower(),
        source=CriSource(
            pod_info["config"],
            config,
            ("info.config of the pod", "info.config of the container"),
            handler=pod.status.runtime_handler,
            ids=(found.sandbox, found.id),
            pause=int(pod_info.get("pid") or 0),
            image=answer.status.image_id,
        ),
        pid=int(info.get("pid") or 0),
        engine=info.get("engine") or "oci",
        given=info.get("runtimeSpec"),
    )


async def explain_running(door: Door, options: Options) -> None:
    """Print what was asked for, what the container was given, and what the kernel shows of its process."""
    async with door.cri() as runtime:
        existing = await source_of(runtime, str(options.subject))
        with Bench(door, options, runtime) as bench:
            explanation = await _asked(bench, existing, options)
            notes = list(bench.notes)
            given = existing.given or explanation.document
            if options.json:
                print_json(given)
                return
            seen = _look(existing, bench, given, notes)
    rows = [row for row in _rows(existing, given, explanation, seen) if below(row.path, options.path)]
    if options.output is Format.JSON:
        print_json(_as_json(existing, rows, [*notes, *explanation.warnings]))
        return
    _show(existing, rows, [*notes, *explanation.warnings], options)


async def _asked(bench: Bench, existing: Existing, options: Options) -> Explanation:
    """The plan of the same request: for the origins."""
    config, planner, _ = bench.open(options.engine or existing.engine)
    [asked, *_] = await existing.source.asked(planner, bench, config)
    explanation = await explain_one(planner, asked)
    assert explanation is not None
    if existing.given is None or explanation.spec is None:
        return explanation
    # What it has been given is a spec, whatever the engine asks for.
    rest = dict.fromkeys(existing.given, "default: the engine's own")
    return replace(
        explanation.spec, origins={**rest, **explanation.spec.origins}, warnings=explanation.warnings
    )


def _look(
    existing: Existing, bench: Bench, given: Mapping[str, Any], notes: list[str]
) -> Mapping[str, tuple[Any, bool]]:
    """What the kernel shows by place, and whether it agrees with what was given."""
    from podwright.engines.node.seen import compare
    from podwright.linux import process_facts

    if existing.engine not in NODE_ENGINES:
        notes.append(f"the container is the {existing.engine} engine's: it has no process to look at")
        return {}
    if not bench.planner.runs_here(existing.source.handler):
        notes.append(
            f"process {existing.pid} is gVisor's, which has a kernel of its own: this host's kernel does not"
            " show what the container's programs see"
        )
        return {}
    if existing.state not in ("running", "created") or not existing.pid:
        notes.append(f"the container is {existing.state}: the kernel shows nothing of it any more")
        return {}
    try:
        facts = process_facts.read(existing.pid)
    except ProcessLookupError as error:
        notes.append(f"{error}: it has ended meanwhile, or runs on another machine")
        return {}
    if facts.uid and not facts.capabilities.get("ambient") and not facts.capabilities.get("effective"):
        notes.append(
            f"it runs as user {facts.uid}: whoever is not root has no more than ambient capabilities when a"
            " program starts (capabilities(7)), so those that were given without being ambient do nothing"
        )
    if existing.state == "created":
        notes.append("the container is not started yet: what is seen is the runtime's process")
    if facts.mounts is None or facts.namespaces is None:
        notes.append("this user may not see everything of the process: ask as root")
    return {path: (each.value, each.agrees) for path, each in compare(given, facts).items()}


def _rows(
    existing: Existing,
    given: Mapping[str, Any],
    explanation: Explanation,
    seen: Mapping[str, tuple[Any, bool]],
) -> list[Row]:
    has = places(given)
    return [
        Row(
            path,
            _request(origin(path, explanation.origins), existing.source) if path in has else ABSENT,
            has.get(path),
            *seen.get(path, (None, True)),
        )
        for path in dict.fromkeys((*has, *seen))
        if path in has or not seen[path][1]
    ]


def _request(because: str, source: CriSource) -> str:
    """The origin, with the value that the request's field has."""
    word, _, rest = because.partition(": ")
    if word != "request":
        return because
    field = rest.split(";")[0].split(",")[0].split(" ")[0]
    value = _field(field, source)
    return because if value is None else f"{field} = {value}"


def _field(field: str, source: CriSource) -> str | None:
    """The value of a scalar at `field` ("config.linux.…"), None when it is none."""
    which, _, path = field.partition(".")
    tree = {"config": source.container, "sandbox_config": source.pod}.get(which)
    value = value_at(tree, path) if tree is not None and path else None
    if isinstance(value, dict) and set(value) == {"value"}:
        value = value["value"]
    return None if value is None or isinstance(value, dict | list) else json.dumps(value).strip('"')


def _show(existing: Existing, rows: Sequence[Row], notes: Sequence[str], options: Options) -> None:
    pid = f", process {existing.pid}" if existing.pid else ""
    out.strong(f"{existing.title} ({short(existing.id)}): {existing.state}{pid}")
    cells = []
    for row in rows:
        looked = row.seen is not None
        mark = DIFFERS if not row.agrees else "=" if looked else ""
        shown = words(row.path, row.seen) if looked else ""
        cells.append((row.path, row.asked, words(row.path, row.given), f"{mark} {shown}".strip()))
    marked = [row.path for row in rows if not row.agrees]
    if out.table(
        ("PATH", "ASKED", "GIVEN", "SEEN"), cells, wide=options.wide or bool(options.path), marked=marked
    ):
        out.note(CUT)
    if marked:
        print()
        out.note(
            f"{DIFFERS} what was given and what is seen differ; a program may change its user, capabilities,"
            " limits, directory and name itself"
        )
    if notes:
        print()
    for text in dict.fromkeys(notes):
        out.warning(text)


def _as_json(existing: Existing, rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    return {
        "id": existing.id,
        "container": existing.title,
        "state": existing.state,
        "pid": existing.pid,
        "rows": [
            {
                "path": row.path,
                "asked": row.asked,
                "given": row.given,
                "seen": row.seen,
                "agrees": row.agrees if row.seen is not None else None,
            }
            for row in rows
        ],
        "warnings": list(notes),
    }


def _info(texts: Mapping[str, str]) -> dict[str, Any]:
    try:
        info = json.loads(texts["info"])
    except (KeyError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}
