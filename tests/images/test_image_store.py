"""The store: names and ids, imports, removal, use by containers, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Image
from podwright.errors import InvalidArgument, NotFound, PodwrightError
from podwright.images.store import ImageStore
from podwright.state.database import Database
from tests.images.layouts import TarMaker, write_layout
from tools import busybox_rootfs

pytestmark = pytest.mark.root

OpenStore = Callable[..., Awaitable[ImageStore]]
BASE = TarMaker().add("base", b"b" * 10_000).done()


@pytest.fixture
def layout(tmp_path: Path) -> Callable[..., str]:
    """Writes an image of BASE and a file with this text; returns the reference to pull it by."""

    def write(text: str, name: str = "app", **options: object) -> str:
        layers = [BASE, TarMaker().add("text", text.encode()).done()]
        write_layout(tmp_path / name, layers, **options)  # type: ignore[arg-type]
        return f"oci:{tmp_path / name}:v1"

    return write


def directories(store: ImageStore, tmp_path: Path) -> set[str]:
    for place in ("images/tmp", "images/blobs/incoming"):
        assert list((tmp_path / place).iterdir()) == [], place
    return {path.name for path in (tmp_path / "images/l").iterdir()} - {"0"}


async def test_an_imported_root_is_an_image(store: ImageStore, tmp_path: Path) -> None:
    root = busybox_rootfs.make(tmp_path / "root")
    image = await store.import_root(root, "hello", config={"Cmd": ["/bin/sh"], "User": "app:more"})
    assert image.repo_tags == ("docker.io/library/hello:latest",)
    assert image.repo_digests == ()
    assert image.user == "app:more"
    assert image.size > (root / "bin/busybox").stat().st_size // 2
    (layer,) = store.lower_dirs(image.id)
    assert (layer / "bin/sh").stat().st_ino == (layer / "bin/busybox").stat().st_ino
    assert (layer / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (layer / "root").stat().st_mode & 0o7777 == 0o700
    assert [found.id for found in await store.list()] == [image.id]


async def test_the_same_root_gives_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    config = {"Env": ["A=1"], "Cmd": ["x"]}
    first = await store.import_root(busybox_rootfs.make(tmp_path / "1"), "one", config=config)
    config = {"Cmd": ["x"], "Env": ["A=1"]}
    second = await store.import_root(busybox_rootfs.make(tmp_path / "2"), "two", config=config)
    assert first.id == second.id
    assert second.repo_tags == ("docker.io/library/one:latest", "docker.io/library/two:latest")


async def test_an_import_says_what_is_wrong(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no directory"):
        await store.import_root(tmp_path / "absent", "x", config={})
    with pytest.raises(InvalidArgument, match=r"^reference: "):
        await store.import_root(tmp_path, "X", config={})


async def test_an_image_is_found_by_name_id_and_beginning_of_its_id(
    store: ImageStore, layout: Callable[..., str]
) -> None:
    image = await store.pull(layout("x"))
    digits = image.id.removeprefix("sha256:")
    for reference in (image.id, digits, digits[:12], digits[:3], image.id[:20], "localhost/app:v1"):
        found = await store.find(reference)
        assert found is not None and found.id == image.id, reference
    for reference in ("localhost/app", "app:v1", "0" * 64, f"localhost/app@{image.id}"):
        assert await store.find(reference) is None, reference
    for reference in ("", "Bad Name", "sha256:"):
        with pytest.raises(InvalidArgument):
            await store.find(reference)


async def test_an_ambiguous_beginning_of_an_id_is_an_error(store: ImageStore, tmp_path: Path) -> None:
    """Seventeen images have two ids with the same first digit; three digits are asked for, so make them."""
    seen: dict[str, str] = {}
    for number in range(4096):
        image_id = write_layout(tmp_path / "l", [BASE], config={"Labels": {"n": str(number)}})
        prefix = image_id[7:10]
        if prefix in seen:
            break
        seen[prefix] = str(number)
    await store.pull(f"oci:{tmp_path / 'l'}:v1")
    write_layout(tmp_path / "l", [BASE], config={"Labels": {"n": seen[prefix]}})
    await store.pull(f"oci:{tmp_path / 'l'}:v1")
    with pytest.raises(InvalidArgument, match="2 images have ids"):
        await store.find(prefix)


async def test_an_exact_name_beats_the_beginning_of_an_id(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [BASE])
    first = await store.pull(f"oci:{tmp_path / 'l'}:v1")
    (tmp_path / "root").mkdir()
    second = await store.import_root(tmp_path / "root", first.id[7:12], config={})
    found = await store.find(first.id[7:12])
    assert found is not None and found.id == second.id


async def test_layers_are_stored_once(store: ImageStore, layout: Callable[..., str], tmp_path: Path) -> None:
    one = await store.pull(layout("1", "one"))
    two = await store.pull(layout("2", "two"))
    assert len(directories(store, tmp_path)) == 3
    assert store.lower_dirs(one.id)[1] == store.lower_dirs(two.id)[1]
    assert (store.lower_dirs(two.id)[0] / "text").read_text() == "2"
    await store.remove(one.id)
    assert len(directories(store, tmp_path)) == 2
    await store.remove(two.id)
    assert directories(store, tmp_path) == set()


async def test_a_name_that_moves_leaves_the_old_image_listed_without_it(
    store: ImageStore, layout: Callable[..., str]
) -> None:
    old = await store.pull(layout("old"))
    new = await store.pull(layout("new"))
    listed = {image.id: image.repo_tags for image in await store.list()}
    assert listed == {old.id: (), new.id: ("localhost/app:v1",)}


async def test_removal_by_one_name_removes_the_image_with_all_names(
    store: ImageStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    await store.pull(layout("x", "one"))
    image = await store.pull(layout("x", "two"))
    assert image.repo_tags == ("localhost/one:v1", "localhost/two:v1")
    await store.remove("localhost/one:v1")
    assert await store.list() == []
    assert await store.find("localhost/two:v1") is None
    assert directories(store, tmp_path) == set()
    await store.remove("localhost/one:v1")
    await store.remove(image.id)


async def test_a_removed_image_keeps_its_layers_while_a_container_uses_it(
    open_store: OpenStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    store = await open_store()
    image = await store.pull(layout("x"))
    store.acquire(image.id, "c1")
    store.acquire(image.id, "c2")
    store.acquire(image.id, "c2")
    await store.remove(image.id)
    assert await store.find(image.id) is None
    assert await store.list() == []
    assert all(path.is_dir() for path in store.lower_dirs(image.id))

    store = await open_store()
    assert await store.list() == []
    held = store.held(image.id)
    assert held is not None and held.repo_tags == ()
    store.release("c1")
    store.release("c1")
    assert all(path.is_dir() for path in store.lower_dirs(image.id))
    store.release("c2")
    with pytest.raises(NotFound):
        store.lower_dirs(image.id)
    await store.close()
    assert directories(store, tmp_path) == set()


async def test_an_image_pulled_again_while_its_layers_were_kept_is_whole(
    store: ImageStore, layout: Callable[..., str]
) -> None:
    image = await store.pull(layout("x"))
    store.acquire(image.id, "c")
    await store.remove(image.id)
    assert (await store.pull(layout("x"))).repo_tags == ("localhost/app:v1",)
    store.release("c")
    assert (await store.find(image.id)) is not None
    assert all(path.is_dir() for path in store.lower_dirs(image.id))


async def test_everything_is_known_after_a_restart(open_store: OpenStore, layout: Callable[..., str]) -> None:
    store = await open_store()
    image = await store.pull(layout("x", config={"Env": ["A=b"], "StopSignal": "SIGINT"}))
    store = await open_store()
    assert await store.find("localhost/app:v1") == image
    assert image.stop_signal == "SIGINT"
    assert len(store.lower_dirs(image.id)) == 2


async def test_pinned_images_are_reported(open_store: OpenStore, layout: Callable[..., str]) -> None:
    store = await open_store(pinned=["localhost/app:v1", "docker.io/library/keep*"])
    assert (await store.pull(layout("x"))).pinned
    store = await open_store(pinned=["localhost/else"])
    assert [image.pinned for image in await store.list()] == [False]


async def test_what_a_crash_leaves_is_collected_at_the_next_start(
    open_store: OpenStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    store = await open_store()
    image = await store.pull(layout("x"))
    (tmp_path / "images/l/77/etc").mkdir(parents=True)
    (tmp_path / "images/tmp/1-1/layer").mkdir(parents=True)
    assert {orphan.kind for orphan in store.orphans(set())} == {"image-directory"}
    store = await open_store()
    await store.close()
    assert store.orphans(set()) == []
    assert len(directories(store, tmp_path)) == len(store.lower_dirs(image.id)) == 2


async def test_orphans_can_be_removed_one_by_one(
    store: ImageStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    image = await store.pull(layout("x"))
    store.acquire(image.id, "known")
    store.acquire(image.id, "known#volume")
    store.acquire(image.id, "vanished")
    (tmp_path / "images/l/77").mkdir()
    found = store.orphans({"known"})
    assert [orphan.kind for orphan in found] == ["image-use", "image-directory"]
    for orphan in found:
        await store.remove_orphan(orphan)
    assert store.orphans({"known"}) == []
    assert len(directories(store, tmp_path)) == 2


async def test_an_image_whose_layer_was_deleted_by_others_is_forgotten(
    open_store: OpenStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    store = await open_store()
    image = await store.pull(layout("x"))
    top = store.lower_dirs(image.id)[0]
    top.rename(tmp_path / "elsewhere")
    store = await open_store()
    assert await store.list() == []
    again = await store.pull(layout("x"))
    assert again.id == image.id


async def test_a_layer_with_a_wrong_diff_id_leaves_no_image(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [BASE, BASE], diff_ids=[f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"])
    with pytest.raises(PodwrightError, match="its image says"):
        await store.pull(f"oci:{tmp_path / 'l'}:v1")
    await store.close()
    assert await store.list() == []
    assert directories(store, tmp_path) == set()


async def test_a_cancelled_pull_leaves_nothing(
    store: ImageStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    reference = layout("x" * 1_000_000)
    for seconds in (0.0, 0.02, 0.05, 0.1):
        pulls = [asyncio.create_task(store.pull(reference)) for _ in range(2)]
        await asyncio.wait(pulls, timeout=seconds)
        for task in pulls:
            task.cancel()
        await asyncio.wait(pulls)
        if not any(task.cancelled() for task in pulls):
            break
    await store.close()
    kept = directories(store, tmp_path)
    assert len(kept) == (2 if await store.list() else 0)
    image = await store.pull(reference)
    assert len(store.lower_dirs(image.id)) == 2


async def test_an_image_without_layers_can_be_mounted(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", [])
    image = await store.pull(f"oci:{tmp_path / 'l'}:v1")
    (empty,) = store.lower_dirs(image.id)
    assert list(empty.iterdir()) == []
    assert image.size > 0


async def test_archives_and_directories(
    store: ImageStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    source = layout("x")
    first = await store.pull(source)
    for target, name in [
        (f"oci-archive:{tmp_path}/a.tar", "localhost/a:latest"),
        (f"oci-archive:{tmp_path}/b.tar:quay.io/team/b:2", "quay.io/team/b:2"),
        (f"docker-archive:{tmp_path}/c.tar:team/c:3", "docker.io/team/c:3"),
        (f"dir:{tmp_path}/d", "localhost/d:latest"),
    ]:
        done = subprocess.run(["skopeo", "copy", "-q", source, target], capture_output=True, text=True)  # noqa: ASYNC221
        assert done.returncode == 0, done.stderr
        transport, path = target.split(":")[:2]
        image = await store.pull(f"{transport}:{path}")
        assert name in image.repo_tags
        assert image.repo_digests == ()
        if transport != "docker-archive":
            assert image.id == first.id
        assert (store.lower_dirs(image.id)[0] / "text").read_text() == "x"


async def test_a_local_source_that_is_none_says_so(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for reference in (
        f"oci:{tmp_path}/absent",
        f"docker-archive:{tmp_path}/text",
        f"oci-archive:{tmp_path}/x",
    ):
        with pytest.raises(NotFound, match=str(tmp_path)):
            await store.pull(reference)


async def test_two_pulls_of_one_base_unpack_it_once(
    store: ImageStore, layout: Callable[..., str], tmp_path: Path
) -> None:
    images: list[Image] = await asyncio.gather(*(store.pull(layout(name, name)) for name in ("a", "b", "c")))
    assert len({image.id for image in images}) == 3
    assert len(directories(store, tmp_path)) == 4


async def test_a_store_of_an_older_database_opens_again(tmp_path: Path) -> None:
    """`open` may run on a database that has the tables already."""
    database = Database.open(tmp_path / "db")
    for _ in range(2):
        store = ImageStore(tmp_path / "images", database, Config())
        await store.open()
        await store.close()
    database.close()
