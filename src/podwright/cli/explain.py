"""explain: the spec that a container would get, and why each value is there; what a change would change; and
of a container that exists, what was asked, what was given and what the kernel shows.

Nothing is made, and no house is opened: the engine's plan is built beside whoever has its state.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from podwright.cli import explain_table as out
from podwright.cli.explain_sources import Asked, CriSource, ManifestSource, Source
from podwright.cli.explain_words import apart, words
from podwright.cli.output import Format
from podwright.cli.output import json as print_json
from podwright.engines.base import Explanation, Image, Planner
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError, Unavailable
from podwright.hooks.running import Hooks
from podwright.house import NODE_ENGINES, open_planner
from podwright.spec.places import changes, origin, places
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.config import Config

IMAGE_COMMAND = "IMAGE_COMMAND"
"""Stands for what an image that cannot be seen would run."""
CUT = "… cut to the terminal's width: --wide shows all, --path PREFIX a part of it in full"
COMMON_WORDS = "what the request decides, in the words of an OCI runtime spec"
SAME, DIFFERENT = 0, 1
"""Exit statuses of a comparison, as diff(1) has them; 2 is trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    subject: str | None = None
    """A manifest's file, or a container."""
    pod_config: str | None = None
    container_config: str | None = None
    container: str | None = None
    """Only this one of a pod."""
    handler: str | None = None
    engine: str | None = None
    scenario: Path | None = None
    image_config: str | None = None
    diff: Sequence[str] = ()
    json: bool = False
    output: Format = Format.TABLE
    wide: bool = False
    path: str = ""


@dataclass
class Explained:
    asked: Asked
    explanation: Explanation

    @property
    def title(self) -> str:
        return f"{self.asked.title}: {self.explanation.what}"

    def because(self, path: str) -> str:
        return origin(path, self.explanation.origins)


async def explain(door: Door, options: Options) -> int:
    """Explain what `options` name; the exit status."""
    if options.subject is not None and not options.diff and not _is_file(options.subject):
        from podwright.cli.explain_running import explain_running

        await explain_running(door, options)
        return SAME
    async with _server(door) as server:
        source = await _source(door, options, server)
        with Bench(door, options, server) as bench:
            before = await bench.explain(source, options.handler, options.engine)
            if not options.diff:
                _show(before, options, bench.notes)
                return SAME
            changed, handler, engine = source, options.handler, options.engine
            for one in options.diff:
                changed, handler, engine = _changed(one, changed, handler, engine)
            after = await bench.explain(changed, handler, engine)
            return _show_difference(before, after, options, bench.notes)


# What is asked about


def _is_file(subject: str) -> bool:
    return subject == "-" or Path(subject).exists() or subject.endswith((".yaml", ".yml", ".json"))


async def _source(door: Door, options: Options, server: Cri | None) -> Source:
    if options.pod_config is not None:
        if options.subject is not None:
            raise InvalidArgument("--pod-config", f"or {options.subject}, not both")
        return CriSource.read(options.pod_config, options.container_config)
    if options.container_config is not None:
        raise InvalidArgument("--container-config", "needs --pod-config as well")
    if options.subject is None:
        raise InvalidArgument("", "name a Pod manifest, a container, or --pod-config and --container-config")
    if _is_file(options.subject):
        return ManifestSource.read(options.subject)
    from podwright.cli.explain_running import source_of

    async with door.cri() as runtime:
        return (await source_of(runtime, options.subject)).source


def _changed(
    diff: str, source: Source, handler: str | None, engine: str | None
) -> tuple[Source, str | None, str | None]:
    """What --diff asks to be compared with."""
    if "=" in diff and not Path(diff).exists():
        path, _, text = diff.partition("=")
        if path == "handler":
            return source, text, engine
        if path == "engine":
            return source, handler, text
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidArgument(
                "--diff", f"{text!r} is not YAML: {' '.join(str(error).split())}"
            ) from error
        return source.with_setting(path, value), handler, engine
    if isinstance(source, CriSource):
        return replace(source, container=CriSource.read(diff, None).pod), handler, engine
    return ManifestSource.read(diff), handler, engine


# Explaining


@asynccontextmanager
async def _server(door: Door) -> AsyncIterator[Cri | None]:
    """The server, where one answers this user; it knows its images better than the files do."""
    try:
        address = door.answering()
    except Unavailable:
        if door.socket is not None:
            raise
        address = None
    if address is None:
        yield None
        return
    from podwright.client import connect

    async with connect(address) as runtime:
        yield runtime


class Bench:
    """Planners, the images that they are told of, and what has to be noted about them."""

    def __init__(self, door: Door, options: Options, server: Cri | None) -> None:
        self._door = door
        self._options = options
        self._server = server
        self._stack = ExitStack()
        self.planner: Planner
        self.notes: list[str] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def explain(
        self, source: Source, handler: str | None, engine: str | None
    ) -> dict[tuple[str, str, str], Explained]:
        """By pod and name, in order."""
        config, planner, hooks = self.open(engine)
        if handler is not None:
            source = source.with_handler(handler)
        found = {}
        for asked in chosen(await source.asked(planner, self, config), self._options.container):
            planner.check_handler(asked.sandbox.handler)
            await _admit(asked, hooks)
            explanation = await explain_one(planner, asked)
            if explanation is not None:
                pod = asked.sandbox.config.metadata
                found[pod.namespace, pod.name, asked.name] = Explained(asked, explanation)
        return found

    def open(self, engine: str | None) -> tuple[Config, Planner, Hooks]:
        """The planner of an engine (None: the configured one), whose store `find` looks into from now on."""
        config = host_config(self._door, engine)
        hooks = self._hooks(config)
        self.planner = self._stack.enter_context(open_planner(config, hooks, self._options.scenario))
        return config, self.planner, hooks

    def _hooks(self, config: Config) -> Hooks:
        try:
            return Hooks.load(config.hooks)
        except FailedPrecondition as error:
            if os.geteuid() == 0:
                raise
            self.notes.append(f"{error}; explained without hooks")
            return Hooks()

    async def find(self, reference: str) -> Image:
        """The image with the configuration that this user can get at."""
        image = await self._on_server(reference) or await self.planner.find_image(reference)
        if self._options.image_config is not None:
            config = _image_config(self._options.image_config)
            known = image or Image(reference, (), (), 1, {})
            return replace(known, config=config)
        if image is not None:
            return image
        self.notes.append(
            f"image {reference!r} is not here, or this user cannot see it: what it would give (command,"
            " variables, user, directory, volumes) is missing; pull it, or give --image-config FILE"
        )
        return Image(reference, (), (), 1, {"Cmd": [IMAGE_COMMAND]})

    async def _on_server(self, reference: str) -> Image | None:
        if self._server is None:
            return None
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference), verbose=True)
        try:
            answer = await self._server.image_status(request)
        except PodwrightError as error:
            self.notes.append(f"the server does not tell of image {reference!r}: {error}")
            return None
        if not answer.HasField("image"):
            return None
        try:
            config = json.loads(answer.info["info"])["imageSpec"]["config"]
        except (KeyError, TypeError, ValueError):
            return None
        found = answer.image
        return Image(found.id, tuple(found.repo_tags), tuple(found.repo_digests), found.size, config or {})


def host_config(door: Door, engine: str | None) -> Config:
    """The configuration to plan by. What runs on this kernel runs in root's places, whoever asks."""
    chosen_engine = replace(door, engine=engine) if engine is not None else door
    config = chosen_engine.config()
    return chosen_engine.config(of_host=True) if config.engine in NODE_ENGINES else config


def chosen(asked: Sequence[Asked], name: str | None) -> list[Asked]:
    if name is None:
        return list(asked)
    found = [each for each in asked if each.name == name]
    if not found:
        names = ", ".join(each.name for each in asked if each.name)
        raise NotFound(f"--container: there is none named {name!r}, only {names}")
    return found


async def explain_one(planner: Planner, asked: Asked) -> Explanation | None:
    if asked.container is None:
        return await planner.explain_sandbox(asked.sandbox)
    return await planner.explain_container(asked.container, asked.to_come)


async def _admit(asked: Asked, hooks: Hooks) -> None:
    """Raise what a hook would say to the request."""
    if not hooks.validates:
        return
    pod = asked.sandbox
    if asked.container is None:
        request = cri.RunPodSandboxRequest(config=pod.config, runtime_handler=pod.handler)
        await hooks.validate("RunPodSandbox", request)
    else:
        await hooks.validate(
            "CreateContainer",
            cri.CreateContainerRequest(
                pod_sandbox_id=pod.id, config=asked.container.config, sandbox_config=pod.config
            ),
        )


def _image_config(path: str) -> Mapping[str, Any]:
    """The `config` section of an image's configuration: the whole document, or the section alone."""
    from podwright.kube.manifests.manifest import read_text

    try:
        tree = json.loads(read_text(path))
    except ValueError as error:
        raise InvalidArgument(path, f"is not JSON: {error}") from error
    config = tree.get("config", tree) if isinstance(tree, dict) else None
    if not isinstance(config, dict):
        raise InvalidArgument(path, "is no image configuration")
    return config


# Showing


def _show(found: Mapping[Any, Explained], options: Options, notes: Sequence[str]) -> None:
    if options.json:
        containers = [each for each in found.values() if each.asked.container is not None]
        if len(containers) != 1:
            names = ", ".join(each.asked.name for each in containers) or "none"
            raise InvalidArgument("--json", f"is for one container: choose it by --container ({names})")
        print_json(containers[0].explanation.document)
        return
    if options.output is Format.JSON:
        print_json([_as_json(each, options.path, notes) for each in found.values()])
        return
    cut = False
    shown = [(each, rows) for each in found.values() if (rows := _rows(each, options.path))]
    if not shown:
        raise NotFound(f"--path: there is nothing at {options.path!r}")
    for number, (each, rows) in enumerate(shown):
        if number:
            print()
        out.strong(each.title)
        if options.path:
            _show_closely(each, [path for path, _ in rows])
        else:
            cut |= out.table(
                ("PATH", "VALUE", "BECAUSE"),
                [(path, words(path, value), each.because(path)) for path, value in rows],
                wide=options.wide,
            )
    if cut:
        out.note(CUT)
    _warn([*notes, *(text for each in found.values() for text in _warnings(each, len(found)))])


def _rows(one: Explained, prefix: str) -> list[tuple[str, Any]]:
    return [(path, value) for path, value in places(one.explanation.document).items() if below(path, prefix)]


def below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or inside of it; "linux.res" is no place around "linux.resources"."""
    rest = path.removeprefix(prefix)
    return not prefix or (path.startswith(prefix) and (not rest or rest[0] in ".[" or prefix[-1] in ".["))


def _show_closely(one: Explained, paths: Sequence[str]) -> None:
    found = places(one.explanation.document)
    for path in paths:
        value = found[path]
        shown = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else value
        out.strong(path)
        out.note(f"  {one.because(path)}")
        for line in str(shown).splitlines() or [""]:
            print(f"  {line}")


def _as_json(one: Explained, prefix: str, notes: Sequence[str]) -> dict[str, Any]:
    pod = one.asked.sandbox.config.metadata
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": one.asked.name,
        "what": one.explanation.what,
        "rows": [
            {"path": path, "value": value, "because": one.because(path)} for path, value in _rows(one, prefix)
        ],
        "warnings": [*notes, *one.explanation.warnings],
    }


def _warnings(one: Explained, of: int) -> Iterator[str]:
    for text in one.explanation.warnings:
        yield f"{one.asked.title}: {text}" if of > 1 else text


def _warn(texts: Sequence[str]) -> None:
    if texts:
        print()
    for text in dict.fromkeys(texts):
        out.warning(text)


# Comparing


def _show_difference(
    before: Mapping[Any, Explained],
    after: Mapping[Any, Explained],
    options: Options,
    notes: Sequence[str],
) -> int:
    found: list[dict[str, Any]] = []
    pairs = _pairs(before, after)
    unlike = any(_need_common_words(old, new) for old, new in pairs)
    alone: list[str] = []
    for old, new in pairs:
        either = new or old
        assert either is not None
        if unlike and not (old and new):
            alone.append(f"{either.title}; the other engine has none")
            continue
        rows = _changes(old, new, options.path)
        what = COMMON_WORDS if unlike else either.explanation.what
        if rows:
            found.append({"title": either.asked.title, "what": what, "changes": rows})
    if options.json or options.output is Format.JSON:
        print_json(found)
        return DIFFERENT if found else SAME
    cut = False
    for number, one in enumerate(found):
        if number:
            print()
        out.strong(f"{one['title']}: {one['what']}")
        cells = []
        for row in one["changes"]:
            path, pair = row["path"], (row["before"], row["after"])
            in_words = [words(path, each) for each in pair] if options.wide else apart(path, *pair)
            cells.append((path, *in_words, row["because"]))
        cut |= out.table(("PATH", "BEFORE", "AFTER", "BECAUSE"), cells, wide=options.wide)
    if cut:
        out.note(CUT)
    if not found:
        print("nothing would change")
    shown = {text for old, new in pairs if old for text in old.explanation.warnings}
    new_ones = [text for old, new in pairs if new for text in new.explanation.warnings if text not in shown]
    _warn([*notes, *alone, *new_ones])
    return DIFFERENT if found else SAME


def _pairs(
    before: Mapping[Any, Explained], after: Mapping[Any, Explained]
) -> list[tuple[Explained | None, Explained | None]]:
    """What has the same name; of two pods that are called differently those in the same place."""
    if not set(before) & set(after) and [key[2] for key in before] == [key[2] for key in after]:
        return list(zip(before.values(), after.values(), strict=True))
    return [(before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))]


def _need_common_words(old: Explained | None, new: Explained | None) -> bool:
    """They are documents of unlike kinds, and of one that is no spec there is one."""
    if old is None or new is None or old.explanation.what == new.explanation.what:
        return False
    return old.explanation.spec is not None or new.explanation.spec is not None


def _in_common_words(old: Explained, new: Explained) -> tuple[Explained, Explained, Sequence[str] | None]:
    """Two documents of unlike kinds as specs, and the places that both speak of; None: all."""
    told = None
    both = []
    for each in (old, new):
        if (spec := each.explanation.spec) is not None:
            told = list(spec.origins)
            each = replace(each, explanation=spec)
        both.append(each)
    return both[0], both[1], told


def _changes(old: Explained | None, new: Explained | None, prefix: str) -> list[dict[str, Any]]:
    rows = []
    told: Sequence[str] | None = None
    if old and new and _need_common_words(old, new):
        old, new, told = _in_common_words(old, new)
    for change in changes(old.explanation.document if old else {}, new.explanation.document if new else {}):
        if not below(change.path, prefix):
            continue
        if told is not None and not any(below(change.path, place) for place in told):
            continue
        gone = change.after is None
        source = old if gone else new
        because = source.because(change.path) if source else ""
        rows.append(
            {
                "path": change.path,
                "before": change.before,
                "after": change.after,
                "because": f"no longer: {because}" if gone else because,
            }
        )
    return rows
