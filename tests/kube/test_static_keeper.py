"""The keeper of a directory of manifests, on a fake node: edits, deletions, its own restarts, strangers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node
from podwright.kube.static.keeper import Keeper
from podwright.testing.calls import Call
from tests.kube.static_stage import StaticStage, pod, static_stage


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StaticStage]:
    async with static_stage(tmp_path, monkeypatch) as made:
        yield made


def acts(stage: StaticStage) -> list[str]:
    names = ("RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemovePodSandbox")
    return [call.rpc for call in stage.node.calls if call.rpc in names]


async def test_files_that_come_change_and_go(stage: StaticStage) -> None:
    stage.write("a.yaml", pod("a"))
    await stage.begin()
    await stage.until(lambda: stage.running("a-n") == ["example.test/web:1"])
    stage.write("b.yaml", pod("b"))
    await stage.until(lambda: bool(stage.running("b-n")))
    before = stage.pods["a-n"].uid
    stage.write("a.yaml", pod("a", "example.test/web:2"))
    await stage.until(lambda: stage.running("a-n") == ["example.test/web:2"])
    assert stage.pods["a-n"].uid != before and stage.pods["b-n"].restarts == 0
    (stage.directory / "a.yaml").unlink()
    (stage.directory / "b.yaml").unlink()
    await stage.until(lambda: not stage.left() and not stage.pods)


async def test_an_edit_ends_the_old_pod_with_grace_before_the_new_one_begins(stage: StaticStage) -> None:
    hook = {"preStop": {"sleep": {"seconds": 3}}}
    tree = pod()
    tree["spec"]["containers"][0]["lifecycle"] = hook
    stage.write("web.yaml", tree)
    await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    stage.node.calls.clear()
    began = stage.node.world.clock.monotonic()
    stage.write("web.yaml", pod(image="example.test/web:2"))
    await stage.until(lambda: stage.running("web-n") == ["example.test/web:2"])
    assert stage.node.world.clock.monotonic() - began >= 3
    assert acts(stage) == [
        "StopContainer",
        "RemovePodSandbox",
        "RunPodSandbox",
        "CreateContainer",
        "StartContainer",
    ]


async def test_the_last_of_many_edits_wins(stage: StaticStage) -> None:
    stage.write("web.yaml", pod(image="example.test/web:0"))
    await stage.begin()
    for version in range(1, 6):
        stage.write("web.yaml", pod(image=f"example.test/web:{version}"))
        await stage.until(lambda: stage.keeper is not None and bool(stage.pods))
    await stage.until(lambda: stage.running("web-n") == ["example.test/web:5"])
    stage.write("web.yaml", pod(image="example.test/web:9"))
    stage.write("web.yaml", pod(image="example.test/web:5"))
    await stage.until(lambda: stage.running("web-n") == ["example.test/web:5"])


async def test_a_broken_file_leaves_its_pod_and_is_told_of(
    stage: StaticStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.write("web.yaml", pod())
    keeper = await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    (stage.directory / "web.yaml").write_text("kind: [")
    await stage.until(lambda: bool(keeper.faults))
    assert stage.running("web-n") == ["example.test/web:1"] and "is not YAML" in caplog.text
    caplog.clear()
    await stage.kill()
    await stage.begin()
    await stage.until(lambda: bool(stage.pods) and stage.pods["web-n"].ready)
    assert acts(stage).count("StartContainer") == 1 and "is not YAML" in caplog.text


async def test_whoever_comes_later_takes_over_what_runs(stage: StaticStage) -> None:
    stage.write("web.yaml", pod())
    stage.write("gone.yaml", pod("gone"))
    stage.write("new.yaml", pod("new"))
    for end in (stage.leave, stage.kill):
        await stage.begin()
        await stage.until(lambda: all(stage.running(f"{name}-n") for name in ("web", "gone", "new")))
        stage.node.calls.clear()
        await end()
        assert all(stage.running(f"{name}-n") for name in ("web", "gone", "new")) and not acts(stage)
    (stage.directory / "gone.yaml").unlink()
    stage.write("new.yaml", pod("new", "example.test/web:2"))
    stage.node.exit("web-n/main", 3)
    await stage.begin()
    await stage.until(lambda: not stage.running("gone-n"))
    await stage.until(lambda: stage.running("new-n") == ["example.test/web:2"])
    await stage.until(lambda: bool(stage.running("web-n")) and stage.pods["web-n"].restarts == 1)
    starts = [subject(call) for call in stage.node.calls if call.rpc == "RunPodSandbox"]
    assert starts == ["new-n"]


def subject(call: Call) -> str:
    name: str = call.request.config.metadata.name
    return name


async def test_a_pod_that_has_ended_is_not_begun_again(stage: StaticStage) -> None:
    stage.write("once.yaml", pod("once", restartPolicy="Never"))
    await stage.begin()
    await stage.until(lambda: bool(stage.running("once-n")))
    stage.node.exit("once-n/main", 0)
    await stage.until(lambda: stage.pods["once-n"].phase == "Succeeded")
    await stage.kill()
    await stage.begin()
    await stage.until(lambda: bool(stage.pods) and stage.pods["once-n"].phase == "Succeeded")
    assert acts(stage).count("StartContainer") == 1
    (stage.directory / "once.yaml").unlink()
    await stage.until(lambda: not stage.left())


async def test_others_pods_are_never_touched(stage: StaticStage, tmp_path: Path) -> None:
    theirs = await stage.node.runtime.run_sandbox("web-n")
    await stage.node.runtime.pull("example.test/web:1")
    other = await theirs.run("main", "example.test/web:1")
    stage.write("web.yaml", pod())
    await stage.begin()
    assert stage.keeper is not None
    await stage.keeper.looked()
    stage.faults.clear()
    stage.node.world.on_step = None  # a stranger may have the same name
    await stage.until(lambda: len(stage.running("web-n")) == 2)
    (stage.directory / "web.yaml").unlink()
    await stage.until(lambda: len(stage.running("web-n")) == 1)
    assert (await other.status()).finished_at == 0


async def test_another_keepers_pod_of_the_same_file_is_left_alone(
    stage: StaticStage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.write("web.yaml", pod())
    await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    uid = stage.pods["web-n"].uid
    await stage.leave()
    # As if another had made it: nothing here knows of it.
    root = stage.node.config.root_path
    (root / "static" / "pods" / f"{uid}.json").unlink()
    (root / "pods" / uid).rename(root / "elsewhere")
    stage.node.calls.clear()
    await stage.begin()
    await stage.until(lambda: "does another keeper have the same file" in caplog.text)
    (stage.directory / "web.yaml").unlink()
    await stage.until(lambda: stage.keeper is not None and not stage.keeper._slots)
    assert stage.running("web-n") and not acts(stage)
    assert uid in caplog.text


async def test_changed_objects_reach_volumes_without_a_restart(stage: StaticStage) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    tree = pod(volumes=[{"name": "config", "configMap": {"name": "settings"}}])
    tree["spec"]["containers"][0]["volumeMounts"] = [{"name": "config", "mountPath": "/config"}]
    stage.write("settings.yaml", {**settings, "data": {"a": "1"}})
    stage.write("web.yaml", tree)
    await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    uid = stage.pods["web-n"].uid
    file = stage.node.config.root_path / "pods" / uid / "volumes/kubernetes.io~configmap/config/a"
    assert file.read_text() == "1"
    stage.write("settings.yaml", {**settings, "data": {"a": "2"}})
    await stage.until(lambda: file.read_text() == "2")
    assert acts(stage).count("StartContainer") == 1 and stage.pods["web-n"].uid == uid


async def test_a_directory_may_come_later_and_go(stage: StaticStage, tmp_path: Path) -> None:
    stage.directory.rmdir()
    keeper = await stage.begin()
    await keeper.looked()
    stage.directory.mkdir()
    stage.write("web.yaml", pod())
    await stage.until(lambda: bool(stage.running("web-n")))
    stage.directory.rename(tmp_path / "away")
    await stage.until(lambda: not stage.left())


async def test_a_server_that_is_gone_for_a_while(stage: StaticStage) -> None:
    stage.write("web.yaml", pod())
    await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    stage.write("more.yaml", pod("more"))
    await stage.node.crash("5s", containers="lose")
    await stage.until(lambda: bool(stage.running("web-n")) and bool(stage.running("more-n")))


async def test_a_root_has_one_keeper_and_one_endpoint(stage: StaticStage) -> None:
    stage.write("web.yaml", pod())
    await stage.begin()
    await stage.until(lambda: bool(stage.running("web-n")))
    second = Keeper(stage.node.cri, stage.directory, stage.node.config)
    with pytest.raises(FailedPrecondition, match="another podwright keeps"):
        await second.__aenter__()
    await stage.leave()
    elsewhere = Keeper(stage.node.cri, stage.directory, stage.node.config, endpoint="unix:///x")
    with pytest.raises(FailedPrecondition, match="has static pods of its own server"):
        await elsewhere.__aenter__()


async def test_links_to_logs_that_were_lost_go_when_it_begins(stage: StaticStage, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    root = stage.node.config.root_path
    (links / "lost_default_c-0.log").symlink_to(root / "logs/default_lost_uid/c/0.log")
    node = Node(name="n", root=root, legacy_logs=links)
    async with Keeper(stage.node.cri, stage.directory, stage.node.config, node=node) as keeper:
        await keeper.looked()
        assert list(links.iterdir()) == []


async def test_an_error_of_the_keepers_own_is_told_and_tried_again(
    stage: StaticStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([OSError("disk is on fire"), RuntimeError("a fault in the program")])
    keeper = await stage.begin()
    write = keeper._records.write

    def failing(manifest: Manifest) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        write(manifest)

    monkeypatch.setattr(keeper._records, "write", failing)
    with caplog.at_level(logging.WARNING):
        stage.write("web.yaml", pod())
        await stage.until(lambda: bool(stage.running("web-n")))
    assert "disk is on fire" in caplog.text and "a fault in the program" in caplog.text
