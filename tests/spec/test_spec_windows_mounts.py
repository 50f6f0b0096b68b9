"""Windows: devices and mounts."""

from __future__ import annotations

import pytest

from podwright.errors import InvalidArgument, Unimplemented
from podwright.spec.inputs import ImageConfig, MountSource, Policy
from podwright.spec.windows import mounts, paths
from podwright.wire import cri_pb2 as cri
from tests.spec.windows_pods import build, container, mounted

PIPE = "\\\\.\\pipe\\"


# Devices


@pytest.mark.parametrize(
    ("path", "kind", "identity"),
    [
        ("class/5B45201D-F2F2-4F3B-85BB-30FF1F953599", "class", "5B45201D-F2F2-4F3B-85BB-30FF1F953599"),
        ("class://5B45201D", "class", "5B45201D"),
        ("vpci-location-path://PCIROOT(0)#PCI(0100)", "vpci-location-path", "PCIROOT(0)#PCI(0100)"),
        ("vpci://PCIP\\VEN_8086&DEV_43A2", "vpci", "PCIP\\VEN_8086&DEV_43A2"),
        ("class/a/b", "class", "a/b"),
        ("a://b://c", "a", "b://c"),
        ("gpu://", "gpu", ""),
    ],
)
def test_devices(path: str, kind: str, identity: str) -> None:
    config = container()
    config.devices.add(host_path=path)
    assert build(config).spec["windows"]["devices"] == [{"id": identity, "idType": kind}]


@pytest.mark.parametrize(
    ("device", "field"),
    [
        ({"host_path": "class/x", "container_path": "C:\\x"}, "container_path"),
        ({"host_path": "class/x", "permissions": "r"}, "permissions"),
        ({"host_path": ""}, "host_path"),
        ({"host_path": "://x"}, "host_path"),
        ({"host_path": "gpu/x"}, "host_path"),
        ({"host_path": "/dev/fuse"}, "host_path"),
    ],
)
def test_devices_that_are_refused(device: dict[str, str], field: str) -> None:
    config = container()
    config.devices.add(host_path="class/fine")
    config.devices.add(**device)
    with pytest.raises(InvalidArgument, match=rf"config\.devices\[1\]\.{field}"):
        build(config)


def test_cdi_devices_are_left_out_with_a_warning() -> None:
    by_field, by_annotation = container(), container()
    by_field.CDI_devices.add(name="vendor.com/gpu=0")
    by_annotation.annotations["cdi.k8s.io/gpu"] = "vendor.com/gpu=0"
    for config in (by_field, by_annotation):
        built = build(config)
        assert "devices" not in built.spec["windows"]
        assert any("CDI" in warning for warning in built.warnings)


# Mounts


@pytest.mark.parametrize(
    ("path", "destination"),
    [
        ("C:\\data", "C:\\data"),
        ("c:/data//x/", "c:\\data\\x"),
        ("\\data\\x", "C:\\data\\x"),
        ("/unix/style", "C:\\unix\\style"),
        ("data", "C:\\data"),
        ("C:\\a\\..\\b\\.", "C:\\b"),
        ("..\\..\\x", "C:\\x"),
        ("D:", "D:"),
        ("D:\\", "D:\\"),
        ("D:.", "D:"),
        ("D:data", "D:\\data"),
    ],
)
def test_mount_destination(path: str, destination: str) -> None:
    found = mounted(cri.Mount(container_path=path, host_path="C:\\h"))
    assert found == [{"destination": destination, "source": "C:\\h", "options": ["rw"]}]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "C:",
        "c:",
        "C:\\",
        "C:/",
        "C:.",
        "C:\\a\\..",
        "\\",
        "/",
        ".",
        "\\\\server\\share\\x",
        "\\\\?\\C:\\x",
        f"{PIPE}x",
    ],
)
def test_mount_destinations_that_are_none(path: str) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.mounts\[0\]\.container_path"):
        mounted(cri.Mount(container_path=path, host_path="C:\\h"))
    with pytest.raises(InvalidArgument, match=r"config\.mounts\[0\]\.container_path"):
        mounts.lookups(cri.ContainerConfig(mounts=[cri.Mount(container_path=path, host_path="C:\\h")]))


def test_pipes_are_neither_looked_up_nor_cleaned() -> None:
    pipe = cri.Mount(container_path=f"{PIPE}..\\b", host_path=f"{PIPE}a\\..\\b", readonly=True)
    assert [found.host_path for found in mounts.lookups(cri.ContainerConfig(mounts=[pipe]))] == [""]
    found = mounted(pipe, mount_sources=[MountSource(path="")])
    assert found == [{"destination": f"{PIPE}..\\b", "source": f"{PIPE}a\\..\\b", "options": ["ro"]}]
    assert paths.is_pipe("//./PIPE/x")


def test_mount_source_is_clean_and_has_its_links_resolved() -> None:
    mount = cri.Mount(container_path="C:\\d", host_path="C:/link")
    assert [found.host_path for found in mounts.lookups(cri.ContainerConfig(mounts=[mount]))] == ["C:/link"]
    assert mounted(mount, mount_sources=[MountSource(path="D:/real/x")])[0]["source"] == "D:\\real\\x"
    assert mounted(mount)[0]["source"] == "C:\\link"


def test_mounts_go_by_depth_and_keep_their_order() -> None:
    asked = ["C:\\a\\b", "C:\\z", "C:\\a", "D:", "\\q"]
    found = mounted(*(cri.Mount(container_path=path, host_path="C:\\h") for path in asked))
    assert [entry["destination"] for entry in found] == ["D:", "C:\\z", "C:\\a", "C:\\q", "C:\\a\\b"]


def test_volumes_of_the_image() -> None:
    image = ImageConfig(volumes=("C:\\one", "C:\\two", "D:"))
    config = container()
    # To Windows this is C:\one.
    config.mounts.add(container_path="/ONE", host_path="C:\\h")
    assert mounts.volumes_needed(config, image, Policy()) == ["C:\\two", "D:"]
    assert mounts.volumes_needed(config, image, Policy(image_volumes=False)) == []
    found = build(config, image=image, volumes={"C:\\two": "C:\\v\\2", "D:": "C:\\v\\d"}).spec["mounts"]
    assert {entry["destination"]: entry["source"] for entry in found} == {
        "D:": "C:\\v\\d",
        "C:\\ONE": "C:\\h",
        "C:\\two": "C:\\v\\2",
    }
    with pytest.raises(Unimplemented, match="D:"):
        build(config, image=image, volumes={"C:\\two": "C:\\v\\2"})


def test_a_mounted_image() -> None:
    mount = cri.Mount(container_path="C:\\i", readonly=True, image=cri.ImageSpec(image="i:1"))
    (found,) = mounts.lookups(cri.ContainerConfig(mounts=[mount]))
    assert (found.host_path, found.image) == ("", mount.image)
    shown = mounted(mount, mount_sources=[MountSource(path="C:\\shown")])
    assert shown == [{"destination": "C:\\i", "source": "C:\\shown", "options": ["ro"]}]
    with pytest.raises(Unimplemented, match="image"):
        mounted(mount)


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        (cri.Mount(container_path="C:\\i", image=cri.ImageSpec(image="i:1")), "readonly"),
        (
            cri.Mount(
                container_path="C:\\i", host_path="C:\\h", readonly=True, image=cri.ImageSpec(image="i:1")
            ),
            "host_path",
        ),
        (cri.Mount(container_path="C:\\i"), "host_path"),
    ],
)
def test_contradictory_mounts(mount: cri.Mount, field: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"config\.mounts\[0\]\.{field}"):
        mounted(mount)


def test_what_windows_mounts_do_not_have_is_warned_about() -> None:
    config = container()
    config.mounts.add(
        container_path="C:\\d",
        host_path="C:\\h",
        readonly=True,
        recursive_read_only=True,
        propagation=cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
    )
    warnings = " ".join(build(config).warnings)
    assert "recursive_read_only" in warnings
    assert "propagation" in warnings
