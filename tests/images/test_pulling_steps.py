"""What a pull tells of its work: resolving, each blob, each layer, recording; and who waits for another's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from podwright.images.store import ImageStore
from podwright.steps import Operations, Step
from tests.images.layouts import TarMaker, digest, gzipped, write_layout

pytestmark = pytest.mark.root


class Told:
    """A watcher."""

    def __init__(self) -> None:
        self.ended_steps: list[Step] = []

    def began(self, step: Step) -> None:
        pass

    def ended(self, step: Step) -> None:
        self.ended_steps.append(step)

    def subjects(self, name: str) -> set[str]:
        return {step.subject for step in self.ended_steps if step.name == name}


async def test_pull_tells_each_blob_and_each_layer(store: ImageStore, tmp_path: Path) -> None:
    layers = [TarMaker().add(name, name.encode()).done() for name in ("a", "b")]
    id = write_layout(tmp_path / "layout", layers)
    operations, told = Operations(), Told()
    operations.watchers = (told,)
    with operations.open("PullImage"):
        await store.pull(f"oci:{tmp_path}/layout:v1")
    names = {step.name for step in told.ended_steps if not step.is_call}
    assert names == {"resolve", "check policy", "fetch blob", "unpack layer", "record image"}
    assert told.subjects("fetch blob") == {id, *(digest(gzipped(layer)) for layer in layers)}
    assert told.subjects("unpack layer") == {digest(layer) for layer in layers}
    sizes = {step.subject: step.attributes["bytes"] for step in told.ended_steps if step.name == "fetch blob"}
    assert sizes[digest(gzipped(layers[0]))] == len(gzipped(layers[0]))
    assert {step.call.name for step in told.ended_steps} == {"PullImage"}

    told.ended_steps.clear()
    with operations.open("RemoveImage"):
        await store.remove(id)
    assert [step.name for step in told.ended_steps] == ["remove image", "RemoveImage"]


async def test_second_pull_of_the_same_waits_for_the_first(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", [TarMaker().add("a", b"a").done()])
    operations, told = Operations(), Told()
    operations.watchers = (told,)

    async def pull(rpc: str) -> None:
        with operations.open(rpc):
            await store.pull(f"oci:{tmp_path}/layout:v1")

    await asyncio.gather(pull("first"), pull("second"))
    steps = {
        rpc: {step.name for step in told.ended_steps if step.call.name == rpc} for rpc in ("first", "second")
    }
    assert steps["second"] == {"wait for pull", "second"}
    assert "wait for pull" not in steps["first"] and "fetch blob" in steps["first"]


async def test_step_of_a_pull_that_fails_tells_why(store: ImageStore, tmp_path: Path) -> None:
    bad = digest(b"something else")
    write_layout(tmp_path / "layout", [TarMaker().add("a", b"a").done()], diff_ids=[bad])
    operations, told = Operations(), Told()
    operations.watchers = (told,)
    with pytest.raises(Exception, match=bad), operations.open("PullImage"):
        await store.pull(f"oci:{tmp_path}/layout:v1")
    failed = {step.name for step in told.ended_steps if step.error is not None}
    assert failed == {"unpack layer", "PullImage"}
