"""Hooks directories: which file counts, when a hook applies, and in what order hooks are called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.spec import oci_hooks
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host


def text(when: dict[str, Any], **members: Any) -> bytes:
    hook = {"version": "1.0.0", "hook": {"path": "/h"}, "when": when, "stages": ["prestart"]}
    return json.dumps(hook | members).encode()


def applies(when: dict[str, Any], config: cri.ContainerConfig | None = None, **given: Any) -> bool:
    hook = oci_hooks.parse(text(when), "/hooks/h.json")
    return "hooks" in build(config, host(hooks=(hook,)), **given).spec


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"always": True}, True),
        ({"always": False}, False),
        ({"commands": ["^/c$"]}, True),
        ({"commands": ["/x", "c"]}, True),
        ({"commands": ["^c"]}, False),
        ({"commands": ["^/[[:alpha:]]$"]}, True),
        ({"commands": ["^/[[:digit:]]$"]}, False),
        ({"annotations": {"^own$": "^y"}}, True),
        ({"annotations": {"^of-pod$": "^x$"}}, True),
        ({"annotations": {"^own$": "^x$"}}, False),
        ({"annotations": {"^none$": ""}}, False),
        ({"annotations": {"own": "y", "of-pod": "x"}}, True),
        ({"annotations": {"own": "y", "none": "x"}}, False),
        ({"annotations": {r"io\.kubernetes\.cri\.container-name": "main"}}, True),
        ({"hasBindMounts": True}, False),
        ({"hasBindMounts": False}, False),
        ({"always": True, "commands": ["x"]}, False),
        ({"always": True, "hasBindMounts": True}, False),
    ],
)
def test_all_conditions_must_hold(when: dict[str, Any], expected: bool) -> None:
    config = container(annotations={"own": "yes"})
    assert applies(when, config, sandbox=cri.PodSandboxConfig(annotations={"of-pod": "x"})) == expected


def test_bind_mounts_are_those_of_the_request() -> None:
    config = container(mounts=[cri.Mount(container_path="/x", host_path="/y")])
    assert applies({"hasBindMounts": True}, config)
    assert applies({"hasBindMounts": True, "commands": ["c"]}, config)


def test_a_hook_stands_in_each_of_its_stages_as_it_is_written() -> None:
    entry = {"path": "/h", "args": ["h", "x"], "env": ["A=1"], "timeout": 5}
    hook = oci_hooks.parse(
        text({"always": True}, hook=entry, stages=["poststop", "createRuntime"]), "/hooks/h.json"
    )
    built = build(None, host(hooks=(hook,)))
    assert built.spec["hooks"] == {"poststop": [entry], "createRuntime": [entry]}
    assert built.origins["hooks.poststop"] == "hook: /hooks/h.json"


def test_hooks_are_called_in_the_order_of_their_names_and_a_later_directory_masks() -> None:
    def file(path: str, priority: int, program: str) -> oci_hooks.File:
        return oci_hooks.File(path, priority, text({"always": True}, hook={"path": program}))

    hooks, errors = oci_hooks.load(
        [
            file("/etc/hooks/20-b.json", 1, "/b-etc"),
            file("/usr/hooks/20-b.json", 0, "/b-usr"),
            file("/usr/hooks/10-Z.json", 0, "/z"),
            file("/usr/hooks/10-a.json", 0, "/a"),
            oci_hooks.File("/usr/hooks/00-bad.json", 0, b"{"),
            oci_hooks.File("/usr/hooks/README", 0, b"not a hook"),
        ]
    )
    assert [hook.entry["path"] for hook in hooks] == ["/a", "/z", "/b-etc"]
    assert list(errors) == ["/usr/hooks/00-bad.json"]
    built = build(None, host(hooks=hooks))
    assert [entry["path"] for entry in built.spec["hooks"]["prestart"]] == ["/a", "/z", "/b-etc"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"version": "0.1.0"}, "version"),
        ({"hook": {"path": "h"}}, "absolute"),
        ({"hook": {"path": "/h", "timeout": 0}}, "timeout"),
        ({"hook": {"path": "/h", "more": 1}}, "more"),
        ({"stages": []}, "stages"),
        ({"stages": ["later"]}, "stages"),
        ({"when": {}}, "no condition"),
        ({"when": {"commands": ["("]}}, "regular expression"),
        ({"when": {"annotations": {"[": "x"}}}, "regular expression"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_invalid_files_are_refused(members: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        oci_hooks.parse(text(**{"when": {"always": True}, **members}), "/hooks/h.json")
    assert "/hooks/h.json" in str(caught.value)
