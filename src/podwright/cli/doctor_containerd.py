"""doctor: what the containerd engine needs of its containerd, asked of it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from podwright.cli.doctor import MISSING, OK, WARNING, Check
from podwright.cli.output import in_words
from podwright.config import Config
from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.host import CONTROLLER, NEEDED, SANDBOXES, SERVICE, Host, Shims
from podwright.engines.containerd.layer_use import directory
from podwright.engines.containerd.shims import SHIM
from podwright.engines.node.places import Places
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.wire.containerd import images_pb2

PATIENCE = 10.0
"""Seconds for one answer."""


async def containerd(config: Config) -> list[Check]:
    """Its socket, version, services, snapshotters, shims and the sandbox image."""
    patience = min(PATIENCE, config.containerd.request_timeout)
    daemon = Containerd(msgspec.structs.replace(config.containerd, request_timeout=patience))
    shims = Shims(config, daemon, Places(config))
    host = Host(config, daemon, shims)
    daemon.open()
    try:
        try:
            await host.look(make=False)
        except FailedPrecondition as error:
            return [Check("containerd", MISSING, in_words(error)), *_services(daemon)]
        except PodwrightError as error:
            return [Check("containerd", MISSING, in_words(error))]
        return [
            Check("containerd", OK, f"{host.version} at {daemon.endpoint}, namespace {daemon.namespace}"),
            *_services(daemon),
            *_snapshotters(config, daemon),
            *_shims(config, shims),
            *await _sandbox_image(config, daemon),
        ]
    finally:
        await daemon.close()


def _services(daemon: Containerd) -> Iterator[Check]:
    lost = [each for each in NEEDED if not daemon.has(SERVICE, each)]
    for each in lost:
        yield Check(f"service {each}", MISSING, daemon.why_not(SERVICE, each))
    if not lost:
        yield Check("services", OK, ", ".join(NEEDED))
    by_shims = daemon.has(CONTROLLER, SHIM)  # 1.7 has the services, and a controller that answers nothing
    for names, works, use, instead in (
        (SANDBOXES, by_shims, "handlers with sandboxer shim", "pods are held together by pause containers"),
        (("transfer", "streaming"), True, "pulls by containerd itself", "podwright fetches images"),
    ):
        absent = [each for each in names if not daemon.has(SERVICE, each)]
        note = use if works and not absent else f"not in this containerd: {instead}"
        yield Check(f"service {' and '.join(absent or names)}", OK, note)


def _snapshotters(config: Config, daemon: Containerd) -> Iterator[Check]:
    default = config.handlers[config.default_handler].snapshotter or config.containerd.snapshotter
    users: dict[str, list[str]] = {config.containerd.snapshotter: []}
    for name, handler in config.handlers.items():
        users.setdefault(handler.snapshotter or config.containerd.snapshotter, []).append(name)
    for snapshotter, handlers in users.items():
        if daemon.has(SNAPSHOTTERS, snapshotter):
            yield Check(f"snapshotter {snapshotter}", OK, directory(daemon, snapshotter) or "works")
        else:
            note = (
                f"{daemon.why_not(SNAPSHOTTERS, snapshotter)}: of handlers {', '.join(handlers) or 'of none'}"
            )
            yield Check(f"snapshotter {snapshotter}", MISSING if snapshotter == default else WARNING, note)


def _shims(config: Config, shims: Shims) -> Iterator[Check]:
    for name in config.handlers:
        try:
            shim = shims.get(name)
        except PodwrightError as error:
            yield Check(f"shim of {name}", MISSING if name == config.default_handler else WARNING, str(error))
            continue
        held = "by itself" if shim.sandboxer == SHIM else "with a pause container"
        yield Check(
            f"shim of {name}", OK, f"{shim.runtime_type} with {shim.program}; holds pods together {held}"
        )


async def _sandbox_image(config: Config, daemon: Containerd) -> list[Check]:
    """Of the one that is made of the host's catatonit that program tells."""
    name = config.containerd.sandbox_image
    if not name:
        return []
    try:
        request = images_pb2.GetImageRequest(name=name)
        await daemon.ask(daemon.images.Get, request, f"image {name}")
    except PodwrightError as error:
        return [Check("sandbox image", WARNING, f"pulled with the first pod: {in_words(error)}")]
    return [Check("sandbox image", OK, name)]
