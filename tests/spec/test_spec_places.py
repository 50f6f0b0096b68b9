"""Places of a spec: every value has one path, and differences are found by it."""

from __future__ import annotations

from typing import Any

from podwright.spec.places import Change, changes, origin, places

SPEC: dict[str, Any] = {
    "process": {"args": ["a", "b"], "env": ["PATH=/bin", "A=1=2", "A=3"], "cwd": "/"},
    "mounts": [{"destination": "/etc/hosts", "type": "bind"}, {"destination": "/proc", "type": "proc"}],
    "linux": {"namespaces": [{"type": "pid"}], "sysctl": {"net.ipv4.ip_forward": "1"}, "resources": {}},
    "annotations": {"io.x/y": "z"},
}


def test_every_value_has_a_place() -> None:
    assert places(SPEC) == {
        "process.args": ["a", "b"],
        "process.env[PATH]": "/bin",
        "process.env[A]": "1=2",
        "process.env[A]#2": "3",
        "process.cwd": "/",
        "mounts[/etc/hosts]": {"destination": "/etc/hosts", "type": "bind"},
        "mounts[/proc]": {"destination": "/proc", "type": "proc"},
        "linux.namespaces[pid]": {"type": "pid"},
        "linux.sysctl[net.ipv4.ip_forward]": "1",
        "annotations[io.x/y]": "z",
    }


def test_changes_name_what_was_added_removed_and_changed() -> None:
    other = {
        **SPEC,
        "mounts": SPEC["mounts"][1:],
        "process": {**SPEC["process"], "cwd": "/home"},
        "root": {"path": "r"},
    }
    assert sorted(changes(SPEC, other), key=lambda change: change.path) == [
        Change("mounts[/etc/hosts]", {"destination": "/etc/hosts", "type": "bind"}, None),
        Change("process.cwd", "/", "/home"),
        Change("root.path", None, "r"),
    ]
    assert changes(SPEC, SPEC) == []


def test_the_nearest_note_around_a_place_is_its_origin() -> None:
    notes = {"process.env": "default: …", "process.env[A]": "image: Env", "linux.namespaces": "host: joined"}
    assert origin("process.env[A]", notes) == "image: Env"
    assert origin("process.env[A]#2", notes) == "image: Env"
    assert origin("process.env[PATH]", notes) == "default: …"
    assert origin("linux.namespaces[pid]", notes) == "host: joined"
    assert origin("mounts[/a.b[c]]", notes) == ""
