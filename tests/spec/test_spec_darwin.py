"""The Darwin builder: a process, mounts, annotations, and nothing that Darwin does not have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument, PodwrightError, Unimplemented
from podwright.spec import darwin
from podwright.spec.base_spec import BaseSpec
from podwright.spec.build import build_container, build_sandbox
from podwright.spec.darwin import DarwinSandboxInput
from podwright.spec.encode import encode
from podwright.spec.inputs import ContainerInput, HandlerOptions, HostFacts, ImageConfig, MountSource, Policy
from podwright.spec.linux.build import Built
from podwright.spec.platforms import Platform, host_network
from podwright.wire import cri_pb2 as cri
from tests.spec.platform_rules import check_darwin
from tests.spec.test_golden_platforms import unexplained

HOST = HostFacts(hostname="node")


def container(**fields: Any) -> cri.ContainerConfig:
    return cri.ContainerConfig(**{"command": ["/c"], **fields})


def build(config: cri.ContainerConfig, **given: Any) -> Built:
    values: dict[str, Any] = {
        "id": "c",
        "config": config,
        "sandbox_id": "s",
        "sandbox": cri.PodSandboxConfig(),
        "image": ImageConfig(),
        "cgroups_path": "",
    }
    built = build_container("darwin/arm64", ContainerInput(**{**values, **given}), HOST, explain=True)
    assert list(unexplained(built)) == []
    check_darwin(built.spec)
    return built


def mounted(*given: cri.Mount, **values: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = build(container(mounts=given), **values).spec["mounts"]
    return found


def test_what_runs() -> None:
    config = container(
        command=[],
        args=["x"],
        tty=True,
        envs=[cri.KeyValue(key="A", value=b"2"), cri.KeyValue(key="E", value=b"")],
    )
    image = ImageConfig(entrypoint=("/e",), cmd=("gone",), env=("A=1", "GONE"), working_dir="/i")
    process = build(config, image=image).spec["process"]
    assert process == {
        "args": ["/e", "x"],
        "env": ["A=1", "A=2", "E="],
        "cwd": "/i",
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
    }


@pytest.mark.parametrize(
    ("asked", "image", "cwd"), [("/r", "/i", "/r"), ("", "/i", "/i"), ("", "", "/"), ("", "i", "/i")]
)
def test_cwd(asked: str, image: str, cwd: str) -> None:
    built = build(container(working_dir=asked), image=ImageConfig(working_dir=image))
    assert built.spec["process"]["cwd"] == cwd


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"config\.command"):
        build(container(command=[]))


def test_there_is_nothing_of_linux() -> None:
    security = cri.LinuxContainerSecurityContext(privileged=True, run_as_user=cri.Int64Value(value=5))
    config = container(linux=cri.LinuxContainerConfig(security_context=security))
    config.devices.add(host_path="/dev/null", container_path="/dev/null", permissions="r")
    built = build(config, image=ImageConfig(user="app"), rootfs_path="/images/1")
    assert set(built.spec) == {"ociVersion", "process", "root", "mounts", "annotations"}
    assert built.spec["root"] == {"path": "/images/1"}
    assert built.spec["process"]["user"] == {"uid": 0, "gid": 0}
    assert built.warnings == (
        "config.linux means nothing on Darwin",
        "config.devices means nothing on Darwin",
        "image User means nothing on Darwin",
    )
    assert build(container()).warnings == ()


def test_mounts_are_binds_by_depth() -> None:
    found = mounted(
        cri.Mount(container_path="/a/b", host_path="/link"),
        cri.Mount(container_path="/a", host_path="/two", readonly=True),
        cri.Mount(container_path="/z//", host_path="/three"),
        cri.Mount(container_path="relative", host_path="/four"),
        mount_sources=[MountSource(path=path) for path in ("/real", "/two", "/three", "/four")],
    )
    assert found == [
        {"destination": "/a", "type": "bind", "source": "/two", "options": ["ro"]},
        {"destination": "/z//", "type": "bind", "source": "/three", "options": ["rw"]},
        {"destination": "/relative", "type": "bind", "source": "/four", "options": ["rw"]},
        {"destination": "/a/b", "type": "bind", "source": "/real", "options": ["rw"]},
    ]


def test_what_darwin_mounts_do_not_have_is_warned_about() -> None:
    mount = cri.Mount(
        container_path="/d", host_path="/h", propagation=cri.MountPropagation.PROPAGATION_BIDIRECTIONAL
    )
    assert build(container(mounts=[mount])).warnings == (
        "config.mounts[0].propagation: Darwin has no such thing",
    )


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        (cri.Mount(host_path="/h"), "container_path"),
        (cri.Mount(container_path="/d"), "host_path"),
        (cri.Mount(container_path="/d", image=cri.ImageSpec(image="i")), "readonly"),
        (
            cri.Mount(container_path="/d", host_path="/h", readonly=True, image=cri.ImageSpec(image="i")),
            "host_path",
        ),
    ],
)
def test_contradictory_mounts(mount: cri.Mount, field: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"config\.mounts\[0\]\.{field}"):
        mounted(mount)
    with pytest.raises(InvalidArgument, match=rf"config\.mounts\[0\]\.{field}"):
        darwin.lookups(container(mounts=[mount]))


def test_a_mounted_image() -> None:
    mount = cri.Mount(container_path="/i", readonly=True, image=cri.ImageSpec(image="i:1"))
    (found,) = darwin.lookups(container(mounts=[mount]))
    assert (found.host_path, found.image) == ("", mount.image)
    shown = mounted(mount, mount_sources=[MountSource(path="/shown")])
    assert shown == [{"destination": "/i", "type": "bind", "source": "/shown", "options": ["ro"]}]
    with pytest.raises(Unimplemented, match="image"):
        mounted(mount)


def test_volumes_of_the_image() -> None:
    image = ImageConfig(volumes=("/one", "two"))
    config = container(mounts=[cri.Mount(container_path="/one/", host_path="/h")])
    assert darwin.volumes_needed(config, image, Policy()) == ["two"]
    assert darwin.volumes_needed(config, image, Policy(image_volumes=False)) == []
    found = build(config, image=image, volumes={"two": "/v"}).spec["mounts"]
    assert [(entry["destination"], entry["source"]) for entry in found] == [("/one/", "/h"), ("/two", "/v")]
    with pytest.raises(Unimplemented, match="two"):
        build(config, image=image)


def test_annotations_of_containers_pass_by_glob_those_of_pods_do_not() -> None:
    sandbox = cri.PodSandboxConfig(annotations={"pod.example/a": "2"})
    handler = HandlerOptions(pod_annotations=["pod.example/*"], container_annotations=["ctr.*/*"])
    config = container(annotations={"ctr.example/a": "1", "other": "1"})
    found = build(config, sandbox=sandbox, handler=handler).spec["annotations"]
    assert found["pod.example/a"] == "2"
    assert found["ctr.example/a"] == "1"
    assert found["io.kubernetes.cri.container-type"] == "container"
    assert "other" not in found
    request = DarwinSandboxInput(
        id="s", config=sandbox, rootfs_path="", handler=handler, image_name="pause:1"
    )
    built = build_sandbox("darwin/arm64", request, HOST, explain=True)
    assert list(unexplained(built)) == []
    check_darwin(built.spec)
    assert built.spec["process"] == {"cwd": "/", "user": {"uid": 0, "gid": 0}}
    annotations = built.spec["annotations"]
    assert annotations["io.kubernetes.cri.container-type"] == "sandbox"
    assert annotations["io.kubernetes.cri.podsandbox.image-name"] == "pause:1"
    assert "pod.example/a" not in annotations


def test_every_pod_is_in_the_hosts_network() -> None:
    config = cri.PodSandboxConfig()
    assert host_network(Platform.parse("darwin/arm64"), config)
    assert not host_network(Platform.parse("linux/arm64"), config)
    config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE
    assert host_network(Platform.parse("linux/arm64"), config)


def test_a_handlers_base_spec_is_what_the_request_comes_over() -> None:
    base = {
        "ociVersion": "1.1.0",
        "process": {"cwd": "/base", "env": ["A=0", "B=1"]},
        "mounts": [{"destination": "/d/", "source": "x"}, {"destination": "/kept", "source": "x"}],
        "linux": {"cgroupsPath": "gone"},
    }
    config = container(
        mounts=[cri.Mount(container_path="/d", host_path="/h")], envs=[cri.KeyValue(key="A", value=b"1")]
    )
    spec = build(config, handler=HandlerOptions(base_spec=BaseSpec("base.json", base))).spec
    assert spec["process"]["cwd"] == "/base"
    assert spec["process"]["env"] == ["A=1", "B=1"]
    assert [mount["source"] for mount in spec["mounts"]] == ["x", "/h"]
    assert "linux" not in spec


PATH = st.one_of(st.sampled_from(["/", "/a", "/a/b", "a", "..", ""]), st.text(alphabet="/.a é", max_size=8))
MOUNT = st.builds(
    cri.Mount,
    container_path=PATH,
    host_path=PATH,
    readonly=st.booleans(),
    image=st.none() | st.just(cri.ImageSpec(image="i:1")),
)
CONFIG = st.builds(
    cri.ContainerConfig,
    command=st.lists(st.text(max_size=5), max_size=2),
    working_dir=PATH,
    envs=st.lists(st.builds(cri.KeyValue, key=st.text(max_size=3), value=st.binary(max_size=3)), max_size=3),
    mounts=st.lists(MOUNT, max_size=3),
    annotations=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)


@given(CONFIG, st.lists(PATH, max_size=2))
def test_any_request_gives_a_valid_spec_or_a_named_error(
    config: cri.ContainerConfig, volumes: list[str]
) -> None:
    image = ImageConfig(cmd=("a",), volumes=tuple(volumes))
    directories = {path: f"/volumes/{place}" for place, path in enumerate(volumes)}
    try:
        built = build(config, image=image, volumes=directories)
    except PodwrightError as refusal:
        assert str(refusal)
        return
    assert encode(built.spec) == encode(build(config, image=image, volumes=directories).spec)
    asked = {mount.host_path for mount in config.mounts} | set(directories.values())
    assert {mount["source"] for mount in built.spec["mounts"]} <= asked
