"""explain: the spec that a container would get, and why each value is there; what a change would change; and
of a container that exists, what was asked, what was given and what the kernel shows.

Nothing is made. What the command line names is read here; others plan it, compare it and show it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from podwright.cli.explain_bench import Bench
from podwright.cli.explain_difference import SAME, show_difference
from podwright.cli.explain_options import Options
from podwright.cli.explain_showing import show
from podwright.cli.explain_sources import CriSource, ManifestSource, Source
from podwright.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door


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
                show(before, options, bench.notes)
                return SAME
            changed, handler, engine = source, options.handler, options.engine
            for one in options.diff:
                changed, handler, engine = _changed(one, changed, handler, engine)
            after = await bench.explain(changed, handler, engine)
            return show_difference(before, after, options, bench.notes)


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
