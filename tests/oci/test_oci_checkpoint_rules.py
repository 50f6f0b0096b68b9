"""Which handlers can checkpoint, without running a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.engines.base import Container, Image, Sandbox
from podwright.engines.node.checkpointing import refusal, require
from podwright.engines.node.restoring import _remove
from podwright.engines.oci import conmon
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.runtimes import Runtime
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux.criu import Criu, Found
from podwright.wire import cri_pb2 as cri


def _runtime(place: Path, name: str, features: str = "") -> Runtime:
    program = place / name
    program.write_text(f"#!/bin/sh\necho '{name} version 1.8.1'\necho 'spec: 1.0.0'\necho '{features}'\n")
    program.chmod(0o755)
    return Runtime(name, str(program), (), place, False)


@pytest.mark.parametrize(
    ("name", "features", "why"),
    [
        ("runc", "", ""),
        ("crun", "+SYSTEMD +CRIU +YAJL", ""),
        ("crun", "+SYSTEMD +YAJL", "crun version 1.8.1 was built without CRIU"),
        ("runsc", "", "not this kernel's"),
        ("youki", "+CRIU", "does not know how youki"),
    ],
)
async def test_a_handler_that_cannot_says_why(tmp_path: Path, name: str, features: str, why: str) -> None:
    told = await refusal(_runtime(tmp_path, name, features))
    assert told == "" if not why else why in told and repr(name) in told


class _Criu(Criu):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self._found = Found("/usr/sbin/criu", "4.1", fault)

    async def find(self) -> Found:
        return self._found


@pytest.mark.parametrize(
    ("name", "fault", "mode", "told"),
    [
        ("crun", "", cri.NODE, ["built without CRIU; a handler with runc can do it"]),
        ("crun", "no such kernel", cri.NODE, ["built without CRIU; and criu 4.1", "here: no such kernel"]),
        ("crun", "", cri.POD, ["built without CRIU; and its pod has a user namespace"]),
        ("runc", "no such kernel", cri.POD, ["its pod has a user namespace", "; and criu 4.1"]),
        (
            "runc",
            "no such kernel",
            cri.NODE,
            ["cannot be checkpointed: criu 4.1 (/usr/sbin/criu) does not work here"],
        ),
        ("runsc", "no such kernel", cri.NODE, ["not this kernel's: CRIU cannot dump them"]),
    ],
)
async def test_all_reasons_are_told_at_once_and_only_ways_out_that_lead_there(
    tmp_path: Path, name: str, fault: str, mode: cri.NamespaceMode, told: list[str]
) -> None:
    config = cri.PodSandboxConfig()
    config.linux.security_context.namespace_options.userns_options.mode = mode
    sandbox = Sandbox("p", "p", config, name)
    container = Container("c", "c", sandbox, cri.ContainerConfig(), Image("", (), (), 0, {}), "")
    with pytest.raises(FailedPrecondition) as caught:
        await require(_runtime(tmp_path, name), container, _Criu(fault), "checkpointed")
    message = str(caught.value)
    assert all(each in message for each in told), message
    assert ("runc can do it" in message) == ("runc can do it" in told[0])
    assert ("criu 4.1" in message) == (bool(fault) and name != "runsc")


def test_conmon_restores_with_what_the_checkpoint_was_made_with(tmp_path: Path) -> None:
    task = Supervised(id="c", name="c", bundle=tmp_path, exits=tmp_path, restore=Path("/images"))
    command = conmon._command("conmon", task, ["runc", "--root", "/r"])
    place = command.index("--restore")
    assert command[place + 1] == "/images"
    options = [command[at + 1] for at, word in enumerate(command) if word == "--runtime-opt"]
    assert options == ["--tcp-established", "--file-locks"]


def test_what_an_archive_lists_as_removed_goes_from_its_own_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root / "etc/dir/sub", outside):
        directory.mkdir(parents=True)
    for file in (root / "etc/gone", root / "etc/dir/sub/file", outside / "gone", outside / "stays"):
        file.touch()
    (root / "link").symlink_to(outside)
    (root / "etc/pointer").symlink_to(outside / "stays")
    _remove(root, ["/etc/gone", "etc/dir", "/etc/pointer", "/absent/file", "/link/gone"])
    assert [each.name for each in (root / "etc").iterdir()] == []
    assert sorted(each.name for each in outside.iterdir()) == ["gone", "stays"]
    for path in ("/etc/..", "/", "", "a\0b"):
        with pytest.raises(InvalidArgument):
            _remove(root, [path])
