"""Checkpoints of fake containers: archives in the layout of real ones, with a file of our own in the place of
CRIU's images.

Kept are what a container has written, its arguments, and how long it has run: one that sleeps goes on where
it was, and a scripted end comes when it would have come. Any other program begins anew, for where in its work
it was is known to Python's interpreter alone; it finds its files.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from podwright import structs
from podwright.checkpoints import layout, reading, writing
from podwright.checkpoints.layout import Checkpoint
from podwright.engines.base import Container
from podwright.engines.fake import command
from podwright.engines.fake.world import FakeContainer, Restored, World
from podwright.errors import FailedPrecondition
from podwright.wire import cri_pb2 as cri

ENGINE = "podwright-fake"


class _State(msgspec.Struct, kw_only=True):
    """checkpoint/inventory.img of a fake container."""

    engine: str = ENGINE
    argv: list[str]
    ran: float
    """Seconds."""
    files: dict[str, str | None] = {}
    """In base64; None is a directory."""


def write(
    world: World, made: FakeContainer, container: Container, status: cri.ContainerStatus, location: Path
) -> None:
    """See `Engine.checkpoint_container`. Like all that a fake engine does it takes no time: these archives
    are small, and a virtual clock would not wait for a thread."""
    writing.check_place(location)
    with tempfile.TemporaryDirectory(prefix="podwright-") as directory:
        documents = _documents(world, made, container, status)
        files = _stage(Path(directory), documents)
        log = Path(container.log_path) if container.log_path else None
        if log is not None and log.is_file():
            files[layout.LOG] = log
        writing.write_at_once(location, files)


def read(checkpoint: Checkpoint) -> Restored:
    """FailedPrecondition when it is a real container's."""
    with tempfile.TemporaryDirectory(prefix="podwright-") as directory:
        reading.extract_at_once(checkpoint.source, Path(checkpoint.source), Path(directory))
        content = (Path(directory) / layout.IMAGES / layout.INVENTORY).read_bytes()
    try:
        state = structs.decode(content, _State)
        files = {
            path: None if each is None else bytearray(base64.b64decode(each))
            for path, each in state.files.items()
        }
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        state, files = _State(engine="", argv=[], ran=0), {}
    if state.engine != ENGINE or not state.argv:
        raise FailedPrecondition(
            f"config.image.image: {checkpoint.source} has processes of a real container: the fake engine"
            " restores only what it has written itself"
        )
    return Restored(state.argv, state.ran, files)


def _documents(
    world: World, made: FakeContainer, container: Container, status: cri.ContainerStatus
) -> Mapping[str, bytes]:
    argv = list(made.process.argv if made.process is not None else ())
    former = made.restored
    state = _State(
        argv=argv or (former.argv if former is not None else command.argv(container)),
        ran=world.clock.monotonic() - made.started + (former.ran if former is not None else 0.0),
    )
    written = made.inside.files.written if made.inside is not None else former.files if former else {}
    for path, content in written.items():
        state.files[path] = None if content is None else base64.b64encode(content).decode()
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": state.argv},
        "mounts": [
            {"destination": each.container_path, "type": "bind", "source": each.host_path}
            for each in container.config.mounts
        ],
    }
    return {
        layout.CONFIG: layout.config_dump(status, container.sandbox.handler, world.clock.now()),
        layout.SPEC: msgspec.json.encode(spec),
        layout.STATUS: layout.status_dump(status),
        layout.TASK: layout.task_dump(status, made.pid),
        f"{layout.IMAGES}/{layout.INVENTORY}": msgspec.json.encode(state),
    }


def _stage(directory: Path, documents: Mapping[str, bytes]) -> dict[str, Path]:
    (directory / layout.IMAGES).mkdir()
    for name, content in documents.items():
        (directory / name).write_bytes(content)
    names = [each for each in documents if "/" not in each]
    return {each: directory / each for each in (*names, f"{layout.IMAGES}/")}
