"""CDI: what files are valid, which device wins, and what its edits make of a spec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.spec import cdi
from podwright.spec.inputs import DeviceNode, NamespacePaths
from podwright.spec.linux.cdi import lookups
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host, pod

KIND = "vendor.com/gpu"


def text(edits: dict[str, Any], version: str = "1.0.0", **members: Any) -> bytes:
    spec = {"cdiVersion": version, "kind": KIND, "devices": [{"name": "a", "containerEdits": edits}]}
    return json.dumps(spec | members).encode()


def registry(edits: dict[str, Any], **members: Any) -> cdi.Registry:
    found = cdi.Registry.build([cdi.File("/etc/cdi/v.json", 0, text(edits, **members))])
    assert found.errors == {}
    return found


def asking(*names: str, **fields: Any) -> cri.ContainerConfig:
    return container(CDI_devices=[cri.CDIDevice(name=name) for name in names or (f"{KIND}=a",)], **fields)


# Files


def test_yaml_and_json_say_the_same() -> None:
    yaml = b"""
cdiVersion: "0.6.0"
kind: vendor.com/gpu
annotations: {by: vendor}
containerEdits: {env: [COMMON=1]}
devices:
- name: a
  containerEdits:
    deviceNodes: [{path: /dev/a, hostPath: /dev/b, fileMode: 0640}]
"""
    tree = {
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "annotations": {"by": "vendor"},
        "containerEdits": {"env": ["COMMON=1"]},
        "devices": [
            {
                "name": "a",
                "containerEdits": {
                    "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b", "fileMode": 0o640}]
                },
            }
        ],
    }
    assert cdi.parse(yaml, "x.yaml") == cdi.parse(json.dumps(tree).encode(), "x.json")


@pytest.mark.parametrize(
    ("needed", "edits", "members"),
    [
        ("0.4.0", {"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "bind"}]}, {}),
        ("0.5.0", {"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}, {}),
        ("0.6.0", {"env": ["A=1"]}, {"annotations": {"a": "b"}}),
        ("0.6.0", {"env": ["A=1"]}, {"kind": "vendor.com/g.pu"}),
        ("0.7.0", {"additionalGids": [5]}, {}),
        ("0.7.0", {"intelRdt": {"closID": "x"}}, {}),
        ("1.1.0", {"netDevices": [{"hostInterfaceName": "eth1", "name": "eth0"}]}, {}),
    ],
)
def test_a_file_must_be_of_the_version_that_has_what_it_uses(
    needed: str, edits: dict[str, Any], members: dict[str, Any]
) -> None:
    versions = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"]
    for version in versions:
        if versions.index(version) < versions.index(needed):
            with pytest.raises(InvalidArgument, match=f"at least {needed}"):
                cdi.parse(text(edits, version, **members), "f.json")
        else:
            cdi.parse(text(edits, version, **members), "f.json")


@pytest.mark.parametrize(
    ("edits", "members", "words"),
    [
        ({}, {}, "empty containerEdits"),
        ({"env": ["A"]}, {}, "NAME=VALUE"),
        ({"env": ["=1"]}, {}, "NAME=VALUE"),
        ({"unknown": 1}, {}, "unknown"),
        ({"env": ["A=1"]}, {"cdiVersion": "0.2.0"}, "cdiVersion"),
        ({"env": ["A=1"]}, {"cdiVersion": "2.0.0"}, "cdiVersion"),
        ({"env": ["A=1"]}, {"kind": "gpu"}, "VENDOR/CLASS"),
        ({"env": ["A=1"]}, {"kind": "1vendor/gpu"}, "VENDOR/CLASS"),
        ({"env": ["A=1"]}, {"devices": []}, "no devices"),
        ({"env": ["A=1"]}, {"devices": [{"name": "-", "containerEdits": {"env": ["A=1"]}}]}, "device name"),
        ({"env": ["A=1"]}, {"devices": [{"name": "a", "containerEdits": {"env": ["A=1"]}}] * 2}, "twice"),
        ({"deviceNodes": [{"path": ""}]}, {}, "absolute"),
        ({"deviceNodes": [{"path": "/d", "type": "x"}]}, {}, "type"),
        ({"deviceNodes": [{"path": "/d", "permissions": "rx"}]}, {}, "permissions"),
        ({"deviceNodes": [{"path": "/d", "major": -1}]}, {}, "range"),
        ({"hooks": [{"hookName": "later", "path": "/h"}]}, {}, "hookName"),
        ({"hooks": [{"hookName": "prestart", "path": "h"}]}, {}, "absolute"),
        ({"hooks": [{"hookName": "prestart", "path": "/h", "timeout": 0}]}, {}, "timeout"),
        ({"mounts": [{"hostPath": "", "containerPath": "/x"}]}, {}, "mount"),
        ({"mounts": [{"hostPath": "/x", "containerPath": "x"}]}, {}, "mount"),
        ({"intelRdt": {"closID": ".."}}, {}, "closID"),
        ({"additionalGids": [-1]}, {}, "additionalGids"),
    ],
)
def test_invalid_files_are_refused(edits: dict[str, Any], members: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        cdi.parse(text(edits, **members), "/etc/cdi/f.json")
    assert "/etc/cdi/f.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"a: [b"])
@pytest.mark.parametrize("name", ["f.json", "f.yaml"])
def test_what_is_no_spec_is_refused(content: bytes, name: str) -> None:
    with pytest.raises(InvalidArgument, match="is no CDI spec"):
        cdi.parse(content, name)


# The registry


def test_a_later_directory_wins() -> None:
    files = [
        cdi.File("/var/run/cdi/v.json", 1, text({"env": ["FROM=run"]})),
        cdi.File("/etc/cdi/v.json", 0, text({"env": ["FROM=etc"]})),
    ]
    for order in (files, files[::-1]):
        found = cdi.Registry.build(order)
        assert found.devices[f"{KIND}=a"].path == "/var/run/cdi/v.json"
        assert found.errors == {}


def test_two_files_of_one_directory_with_the_same_device_make_it_unusable() -> None:
    files = [cdi.File(f"/etc/cdi/{name}.json", 0, text({"env": ["A=1"]})) for name in "xyz"]
    found = cdi.Registry.build(files)
    with pytest.raises(InvalidArgument, match=r"/etc/cdi/y\.json and by /etc/cdi/z\.json"):
        found.resolve([f"{KIND}=a"])
    later = cdi.File("/var/run/cdi/v.json", 1, text({"env": ["A=2"]}))
    assert cdi.Registry.build([*files, later]).resolve([f"{KIND}=a"])[0].path == "/var/run/cdi/v.json"


def test_an_invalid_file_harms_no_other_and_is_named_when_it_is_missed() -> None:
    bad = cdi.File("/etc/cdi/bad.json", 0, b"{")
    found = cdi.Registry.build([bad, cdi.File("/etc/cdi/v.json", 0, text({"env": ["A=1"]}))])
    assert [each.name for each in found.resolve([f"{KIND}=a"])] == [f"{KIND}=a"]
    with pytest.raises(InvalidArgument, match=r"other\.com/x=1 .*bad\.json"):
        found.resolve(["other.com/x=1"])


def test_all_devices_that_cannot_be_had_are_named() -> None:
    with pytest.raises(InvalidArgument, match=rf"{KIND}=b \({KIND} has a\), other\.com/x=1 \("):
        build(asking(f"{KIND}=b", f"{KIND}=a", "other.com/x=1"), host(cdi=registry({"env": ["A=1"]})))


@pytest.mark.parametrize(
    "name", ["", "gpu", "vendor.com/gpu", "vendor.com/gpu=", "=a", "vendor.com/=a", "a b/c=d"]
)
def test_names_must_be_qualified(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"CDI_devices\[0\]"):
        cdi.requested(asking(name))
    with pytest.raises(InvalidArgument, match=r"annotations\[cdi\.k8s\.io/x\]"):
        cdi.requested(container(annotations={"cdi.k8s.io/x": name}))


def test_the_field_comes_before_annotations_and_each_device_once() -> None:
    annotations = {"cdi.k8s.io/b": "v.com/c=3,v.com/c=1", "cdi.k8s.io/a": "v.com/c=2", "other": "v.com/c=9"}
    asked = cdi.requested(asking("v.com/c=1", annotations=annotations))
    assert [name for name, _ in asked] == ["v.com/c=1", "v.com/c=2", "v.com/c=3"]


def test_cdi_can_be_switched_off() -> None:
    with pytest.raises(FailedPrecondition, match="switched off"):
        build(asking(), host(cdi=None))
    assert build(container(), host(cdi=None)).spec["process"]["args"] == ["/c"]


# Edits


def test_edits_of_a_file_head_come_first_and_once() -> None:
    hook = {"hookName": "prestart", "path": "/h"}
    head = {"containerEdits": {"env": ["WHO=file", "PATH=/cdi"], "hooks": [hook]}}
    devices = [{"name": name, "containerEdits": {"env": [f"WHO={name}", f"{name}=1"]}} for name in "ab"]
    built = build(asking(f"{KIND}=b", f"{KIND}=a"), host(cdi=registry({}, devices=devices, **head)))
    assert built.spec["process"]["env"] == ["PATH=/cdi", "HOSTNAME=node", "WHO=a", "b=1", "a=1"]
    assert built.spec["hooks"] == {"prestart": [{"path": "/h"}]}
    assert built.origins["process.env[b]"] == f"cdi: {KIND}=b (/etc/cdi/v.json)"


def test_a_typed_node_needs_no_look_at_the_host_and_an_untyped_one_does() -> None:
    typed = {"path": "/dev/a", "type": "c", "major": 9, "minor": 1}
    untyped = {"path": "/dev/b", "hostPath": "/dev/real", "permissions": "r"}
    facts = host(cdi=registry({"deviceNodes": [typed, untyped]}))
    assert lookups(asking(), facts) == ["/dev/real"]
    real = DeviceNode(path="/dev/real", type="b", major=8, minor=2, mode=0o640, uid=7, gid=8)
    built = build(asking(), facts, devices={"/dev/real": [real]})
    assert built.spec["linux"]["devices"] == [
        {"path": "/dev/a", "type": "c", "major": 9, "minor": 1},
        {"path": "/dev/b", "type": "b", "major": 8, "minor": 2, "fileMode": 0o640},
    ]
    assert built.spec["linux"]["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 9, "minor": 1, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 2, "access": "r"},
    ]


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ({}, ""),
        ({"/dev/a": []}, ""),
        ({"/dev/a": [DeviceNode(path="/dev/a", type="b", major=1, minor=1)]}, "c"),
        ({"/dev/a": [DeviceNode(path="/dev/a/1", type="c", major=1, minor=1)]}, ""),
    ],
)
def test_a_node_that_the_host_lacks_is_refused(nodes: dict[str, list[DeviceNode]], kind: str) -> None:
    facts = host(cdi=registry({"deviceNodes": [{"path": "/dev/a", "type": kind}]}))
    with pytest.raises(InvalidArgument, match="/dev/a"):
        build(asking(), facts, devices=nodes)


def test_nodes_belong_to_the_user_unless_the_file_says_otherwise() -> None:
    node = {"type": "c", "major": 1, "minor": 2}
    facts = host(
        cdi=registry(
            {"deviceNodes": [{"path": "/dev/a", **node}, {"path": "/dev/b", "uid": 0, "gid": 0, **node}]}
        )
    )
    user = cri.LinuxContainerSecurityContext(
        run_as_user=cri.Int64Value(value=5), run_as_group=cri.Int64Value(value=6)
    )
    built = build(asking(linux=cri.LinuxContainerConfig(security_context=user)), facts)
    owners = [(node["uid"], node["gid"]) for node in built.spec["linux"]["devices"]]
    assert owners == [(5, 6), (0, 0)]


def test_no_permissions_mean_no_rule() -> None:
    node = {"path": "/dev/a", "type": "c", "major": 1, "minor": 2, "permissions": "none"}
    built = build(asking(), host(cdi=registry({"deviceNodes": [node]})))
    assert len(built.spec["linux"]["resources"]["devices"]) == 1


def test_an_edit_takes_the_place_of_what_is_there() -> None:
    edits = {
        "mounts": [{"hostPath": "/lib/x", "containerPath": "/etc/hosts", "options": ["rbind", "ro"]}],
        "deviceNodes": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 9}],
    }
    own = DeviceNode(path="/dev/x", type="c", major=1, minor=3)
    config = asking(devices=[cri.Device(host_path="/dev/x", permissions="r")])
    built = build(config, host(cdi=registry(edits)), devices={"/dev/x": [own]})
    hosts = [mount for mount in built.spec["mounts"] if mount["destination"] == "/etc/hosts"]
    assert [mount["source"] for mount in hosts] == ["/lib/x"]
    assert [node["minor"] for node in built.spec["linux"]["devices"]] == [9]
    assert built.origins["mounts[/etc/hosts]"].startswith("cdi:")


def test_mounts_of_a_pod_with_a_user_namespace_are_mapped() -> None:
    mapping = [cri.IDMapping(host_id=100000, length=65536)]
    options = cri.NamespaceOption(userns_options=cri.UserNamespace(uids=mapping, gids=mapping))
    edits = {
        "mounts": [
            {"hostPath": "/lib/x", "containerPath": "/x", "options": ["ro", "bind"]},
            {"hostPath": "/lib/x", "containerPath": "/y", "options": ["rbind"]},
        ]
    }
    security = cri.LinuxContainerSecurityContext(namespace_options=options)
    built = build(
        asking(linux=cri.LinuxContainerConfig(security_context=security)),
        host(cdi=registry(edits)),
        sandbox=pod(cri.LinuxSandboxSecurityContext(namespace_options=options)),
        namespaces=NamespacePaths(net="/n", user="/u"),
    )
    found = {mount["destination"]: mount["options"] for mount in built.spec["mounts"]}
    assert found["/x"] == ["ro", "bind", "idmap"]
    assert found["/y"] == ["rbind", "ridmap"]


def test_hooks_groups_and_cache_classes() -> None:
    edits = {
        "hooks": [{"hookName": "poststop", "path": "/h", "args": ["h", "x"], "timeout": 3}],
        "additionalGids": [44, 0, 7],
        "intelRdt": {"closID": "gold", "enableMBM": True},
    }
    built = build(asking(), host(cdi=registry(edits)))
    assert built.spec["hooks"] == {"poststop": [{"path": "/h", "args": ["h", "x"], "timeout": 3}]}
    assert built.spec["process"]["user"]["additionalGids"] == [0, 7, 44]
    assert built.user.groups == (0, 7, 44)
    assert built.spec["linux"]["intelRdt"] == {"closID": "gold", "enableMBM": True}


def test_the_group_of_root_is_given_by_no_device() -> None:
    user = cri.LinuxContainerSecurityContext(
        run_as_user=cri.Int64Value(value=5), run_as_group=cri.Int64Value(value=6)
    )
    config = asking(linux=cri.LinuxContainerConfig(security_context=user))
    built = build(config, host(cdi=registry({"additionalGids": [0, 44]})))
    assert built.spec["process"]["user"]["additionalGids"] == [6, 44]


def test_network_devices_are_refused_rather_than_left_out() -> None:
    facts = host(
        cdi=registry({"netDevices": [{"hostInterfaceName": "e1", "name": "e0"}]}, cdiVersion="1.1.0")
    )
    with pytest.raises(Unimplemented, match="network devices"):
        build(asking(), facts)
