"""The chain of plugins, its cache and the watched configuration, with plugins that only take notes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podwright.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from podwright.network import plugin
from podwright.network.cni import Attachment, Cni
from podwright.wire import cri_pb2 as cri

SCRIPT = """#!/bin/sh
type=${0##*/}
cat > "$NOTES/input.$$"
mv "$NOTES/input.$$" "$NOTES/$type.$CNI_COMMAND.json"
echo "$type $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >> "$NOTES/calls"
[ -e "$NOTES/$type.$CNI_COMMAND.hang" ] && { : hanging; exec sleep 1000; }
[ -e "$NOTES/$type.$CNI_COMMAND.err" ] && {
  echo "$type complains" >&2
  cat "$NOTES/$type.$CNI_COMMAND.err"
  exit 1
}
[ "$CNI_COMMAND" = ADD ] && cat "$NOTES/$type.answer"
exit 0
"""

ETH0 = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "br"}, {"name": "eth0", "sandbox": "/n"}, {"name": "net1", "sandbox": "/n"}],
    "ips": [
        {"address": "fd00::2/64", "interface": 1},
        {"address": "10.9.9.9/24", "interface": 2},
        {"address": "10.0.0.2/24", "interface": 1},
        {"address": "10.8.8.8/24", "interface": 0},
    ],
}


class Lab:
    """A configuration directory, a directory of note-taking plugins, and the notes."""

    def __init__(self, root: Path) -> None:
        self.conf, self.bin, self.notes, self.cache = (
            root / name for name in ("conf", "bin", "notes", "cache")
        )
        for each in (self.conf, self.bin, self.notes):
            each.mkdir()
        for type in ("one", "two"):
            (self.bin / type).write_text(SCRIPT)
            (self.bin / type).chmod(0o755)
            self.answer(type, ETH0)

    def answer(self, type: str, tree: Any) -> None:
        (self.notes / f"{type}.answer").write_text(json.dumps(tree))

    def fail(
        self, type: str, command: str, text: str = '{"code": 7, "msg": "no", "details": "really"}'
    ) -> None:
        (self.notes / f"{type}.{command}.err").write_text(text)

    def heal(self) -> None:
        for each in self.notes.glob("*.err"):
            each.unlink()

    def configure(self, version: str = "1.0.0", file: str = "10.conflist", **more: Any) -> None:
        capable = {"type": "two", "capabilities": {"portMappings": True, "bandwidth": True}}
        tree = {"cniVersion": version, "name": "net", "plugins": [{"type": "one"}, capable], **more}
        (self.conf / file).write_text(json.dumps(tree))

    @property
    def calls(self) -> list[str]:
        file = self.notes / "calls"
        return [" ".join(line.split()[:2]) for line in file.read_text().splitlines()] if file.exists() else []

    def forget(self) -> None:
        (self.notes / "calls").unlink(missing_ok=True)

    def input(self, type: str, command: str) -> Any:
        return json.loads((self.notes / f"{type}.{command}.json").read_text())

    def cni(self, **more: Any) -> Cni:
        return Cni(self.conf, [self.bin], self.cache, **more)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path)
    monkeypatch.setenv("NOTES", str(made.notes))
    return made


@pytest.fixture
async def cni(lab: Lab) -> AsyncIterator[Cni]:
    lab.configure()
    opened = lab.cni()
    await opened.open()
    yield opened
    await opened.close()


POD = Attachment(
    id="c1",
    netns="/proc/self/ns/net",
    name="web",
    namespace="default",
    uid="u1",
    ports=[cri.PortMapping(host_port=8080, container_port=80)],
)


async def test_add_runs_the_chain_with_the_previous_result(lab: Lab, cni: Cni) -> None:
    lab.answer("two", {**ETH0, "dns": {"nameservers": ["192.0.2.1"]}})
    result = await cni.add(POD)
    assert lab.calls == ["one ADD", "two ADD"]
    assert "prevResult" not in lab.input("one", "ADD")
    assert "runtimeConfig" not in lab.input("one", "ADD")
    given = lab.input("two", "ADD")
    assert given["prevResult"] == ETH0
    assert given["runtimeConfig"] == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]
    }
    assert (given["name"], given["cniVersion"]) == ("net", "1.0.0")
    assert result.raw["dns"] == {"nameservers": ["192.0.2.1"]}
    line = (lab.notes / "calls").read_text().splitlines()[0]
    assert line == (
        "one ADD c1 /proc/self/ns/net eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"
        "K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1"
    )


@pytest.mark.parametrize(
    ("preference", "ips"),
    [
        ("ipv4", ("10.0.0.2", "fd00::2")),
        ("ipv6", ("fd00::2", "10.0.0.2")),
        ("cni", ("fd00::2", "10.0.0.2")),
    ],
)
async def test_only_addresses_of_eth0_count_the_preferred_first(
    lab: Lab, preference: str, ips: tuple[str, ...]
) -> None:
    lab.configure()
    cni = lab.cni(ip_preference=preference)
    await cni.open()
    assert (await cni.add(POD)).ips == ips
    assert cni.cached("c1") is not None
    await cni.close()


async def test_an_address_that_names_no_interface_is_eth0s(lab: Lab, cni: Cni) -> None:
    lab.answer("two", {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.7/24"}]})
    assert (await cni.add(POD)).ips == ("10.0.0.7",)


async def test_no_address_on_eth0_is_an_error_and_is_deleted_again(lab: Lab, cni: Cni) -> None:
    lab.answer("two", {"cniVersion": "1.0.0", "interfaces": [], "ips": []})
    with pytest.raises(FailedPrecondition, match="gave eth0 of pod 'web' no address"):
        await cni.add(POD)
    assert lab.calls == ["one ADD", "two ADD", "two DEL", "one DEL"]
    assert cni.cached_ids() == set()


async def test_a_failed_add_is_deleted_and_says_which_plugin_and_why(lab: Lab, cni: Cni) -> None:
    lab.fail("two", "ADD")
    with pytest.raises(
        plugin.PluginFailed, match=r"^CNI plugin two failed at ADD: error 7: no \(really\)$"
    ) as error:
        await cni.add(POD)
    assert error.value.code == 7
    assert lab.calls == ["one ADD", "two ADD", "two DEL", "one DEL"]
    assert cni.cached_ids() == set()


@pytest.mark.parametrize(
    ("printed", "words"), [("panic", "exit status 1: two complains"), ("", "exit status 1: two complains")]
)
async def test_a_plugin_that_dies_without_json_is_quoted(
    lab: Lab, cni: Cni, printed: str, words: str
) -> None:
    lab.fail("two", "ADD", printed)
    with pytest.raises(plugin.PluginFailed, match=words):
        await cni.add(POD)


async def test_a_plugin_that_succeeds_without_a_result_is_an_error(lab: Lab, cni: Cni) -> None:
    (lab.notes / "one.answer").write_text("")
    with pytest.raises(plugin.PluginFailed, match="one failed at ADD: it printed no result"):
        await cni.add(POD)
    (lab.notes / "one.answer").write_text("not json")
    with pytest.raises(plugin.PluginFailed, match="it printed no JSON object: not json"):
        await cni.add(POD)


async def test_a_cancelled_add_is_deleted(lab: Lab, cni: Cni) -> None:
    (lab.notes / "two.ADD.hang").touch()
    os.mkfifo(lab.notes / "reached")
    (lab.bin / "two").write_text(SCRIPT.replace("exec sleep", 'echo > "$NOTES/reached"; exec sleep'))
    task = asyncio.create_task(cni.add(POD))
    await asyncio.to_thread((lab.notes / "reached").read_bytes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.calls[-2:] == ["two DEL", "one DEL"]
    assert cni.cached_ids() == set()


async def test_a_plugin_that_hangs_is_given_up(lab: Lab) -> None:
    (lab.notes / "one.ADD.hang").touch()
    with pytest.raises(DeadlineExceeded, match=r"CNI plugin one did not finish ADD within 0\.3 s"):
        await plugin.call("one", "ADD", {}, bin_dirs=[lab.bin], container_id="x", timeout=0.3)


async def test_a_bad_annotation_starts_no_plugin(lab: Lab, cni: Cni) -> None:
    bad = Attachment(id="c2", netns="/n", annotations={"kubernetes.io/ingress-bandwidth": "1"})
    with pytest.raises(InvalidArgument):
        await cni.add(bad)
    assert lab.calls == []
    assert cni.cached_ids() == set()


async def test_delete_runs_backwards_with_the_words_of_the_add(lab: Lab, cni: Cni) -> None:
    await cni.add(POD)
    await cni.close()
    lab.forget()
    (lab.conf / "10.conflist").write_text(
        '{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "gone"}]}'
    )
    again = lab.cni()  # a new server, another configuration, and a caller that knows the id alone
    await again.open()
    assert again.cached_ids() == {"c1"}
    await again.delete(Attachment(id="c1", netns=""))
    assert lab.calls == ["two DEL", "one DEL"]
    given = lab.input("two", "DEL")
    assert given["name"] == "net"
    assert given["prevResult"] == ETH0
    assert given["runtimeConfig"]["portMappings"][0]["hostPort"] == 8080
    line = (lab.notes / "calls").read_text().splitlines()[0].split(" ")
    assert line[3] == ""
    assert "K8S_POD_NAME=web" in line[5]
    assert again.cached_ids() == set()
    lab.forget()
    await again.delete(Attachment(id="c1", netns=""))
    assert lab.calls == []
    await again.close()


async def test_a_vanished_namespace_is_deleted_with_an_empty_path(lab: Lab, cni: Cni, tmp_path: Path) -> None:
    await cni.add(POD)
    left = tmp_path / "pin"
    left.touch()  # the pin's mount is gone, its file is not
    await cni.delete(Attachment(id="c1", netns=str(left)))
    assert (lab.notes / "calls").read_text().splitlines()[-1].split(" ")[3] == ""


async def test_a_failed_delete_is_an_error_until_it_succeeds(lab: Lab, cni: Cni) -> None:
    await cni.add(POD)
    lab.forget()
    lab.fail("two", "DEL")
    with pytest.raises(plugin.PluginFailed, match="two failed at DEL"):
        await cni.delete(POD)
    assert lab.calls == ["two DEL", "one DEL"], "one plugin's failure keeps no other from cleaning up"
    assert cni.cached_ids() == {"c1"}
    lab.heal()
    await cni.delete(POD)
    assert cni.cached_ids() == set()


async def test_an_add_that_a_crash_cut_short_is_deleted_even_if_plugins_complain(lab: Lab, cni: Cni) -> None:
    await cni.add(POD)
    file = lab.cache / "results" / "c1.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "result": None}))
    assert cni.cached("c1") is None
    lab.fail("one", "DEL")
    await cni.delete(POD)
    assert cni.cached_ids() == set()


async def test_an_add_that_a_crash_cut_short_waits_for_a_missing_plugin(lab: Lab, cni: Cni) -> None:
    """It may hold an address: forgetting the attachment would leak that for good."""
    await cni.add(POD)
    file = lab.cache / "results" / "c1.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "result": None}))
    lab.fail("two", "DEL")
    (lab.bin / "one").rename(lab.bin / "away")
    with pytest.raises(FailedPrecondition, match="'one' is in none of"):
        await cni.delete(POD)
    assert cni.cached_ids() == {"c1"}
    (lab.bin / "away").rename(lab.bin / "one")
    await cni.delete(POD)
    assert cni.cached_ids() == set()


async def test_a_damaged_cache_file_falls_back_to_the_present_configuration(lab: Lab, cni: Cni) -> None:
    await cni.add(POD)
    lab.forget()
    (lab.cache / "results" / "c1.json").write_text('{"id": "c')
    assert cni.cached("c1") is None
    await cni.delete(POD)
    assert lab.calls == ["two DEL", "one DEL"]
    assert cni.cached_ids() == set()


@pytest.mark.parametrize(
    ("version", "more", "calls"),
    [
        ("0.3.1", {}, []),
        ("0.4.0", {}, ["one CHECK", "two CHECK"]),
        ("1.0.0", {"disableCheck": True}, []),
        ("1.1.0", {}, ["one CHECK", "two CHECK"]),
    ],
)
async def test_check_asks_as_the_version_allows(lab: Lab, version: str, more: Any, calls: list[str]) -> None:
    lab.configure(version, **more)
    cni = lab.cni()
    await cni.open()
    with pytest.raises(NotFound):
        await cni.check(POD)
    await cni.add(POD)
    lab.forget()
    await cni.check(POD)
    assert lab.calls == calls
    await cni.close()


async def test_old_versions_get_no_result_at_delete(lab: Lab) -> None:
    lab.configure("0.3.1")
    cni = lab.cni()
    await cni.open()
    await cni.add(POD)
    await cni.delete(POD)
    assert "prevResult" not in lab.input("two", "DEL")
    await cni.close()


async def test_status_asks_the_plugins_since_1_1(lab: Lab) -> None:
    lab.configure("1.1.0")
    cni = lab.cni()
    await cni.open()
    assert await cni.status() == ""
    assert lab.calls == ["one STATUS", "two STATUS"]
    lab.fail("two", "STATUS", '{"code": 50, "msg": "warming up"}')
    assert await cni.status() == "CNI plugin two failed at STATUS: error 50: warming up"
    await cni.close()


async def test_status_names_a_missing_plugin(lab: Lab, cni: Cni) -> None:
    assert await cni.status() == ""
    assert lab.calls == []
    (lab.bin / "two").unlink()
    assert f"CNI plugin 'two' is in none of {lab.bin}" in await cni.status()
    with pytest.raises(Unavailable, match="the network is not ready: CNI plugin 'two'"):
        await cni.add(POD)


@pytest.mark.parametrize(("version", "sole"), [("1.0.0", True), ("1.1.0", True), ("1.1.0", False)])
async def test_gc_deletes_what_no_valid_sandbox_has(lab: Lab, version: str, sole: bool) -> None:
    lab.configure(version)
    cni = lab.cni()
    await cni.open()
    for id in ("keep", "lost"):
        await cni.add(Attachment(id=id, netns="/proc/self/ns/net"))
    lab.forget()
    assert await cni.gc({"keep", "never-attached"}, sole_user=sole) == ["lost"]
    assert cni.cached_ids() == {"keep"}
    if version == "1.1.0" and sole:
        assert lab.calls == ["two DEL", "one DEL", "one GC", "two GC"]
        given = lab.input("one", "GC")
        assert given["cni.dev/valid-attachments"] == [{"containerID": "keep", "ifname": "eth0"}]
    else:
        assert lab.calls == ["two DEL", "one DEL"]
    await cni.close()


async def test_every_plugin_of_the_chain_is_called_even_with_nothing_to_do(lab: Lab) -> None:
    (lab.bin / "two").rename(lab.bin / "portmap")
    lab.answer("portmap", ETH0)
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    lab.configure(plugins=[{"type": "one"}, portmap])
    cni = lab.cni()
    await cni.open()
    quiet = Attachment(id="q", netns="/proc/self/ns/net")
    assert (await cni.add(quiet)).ips == ("10.0.0.2", "fd00::2")
    await cni.delete(quiet)
    assert lab.calls == ["one ADD", "portmap ADD", "portmap DEL", "one DEL"]
    await cni.close()


# The watched directory


class Followed(Cni):
    """Says when it has read the configuration again."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.loads: asyncio.Queue[str] = asyncio.Queue()

    def _load(self) -> None:
        super()._load()
        self.loads.put_nowait(self.error)

    async def until(self, error: str) -> None:
        async with asyncio.timeout(10):
            while True:
                last = await self.loads.get()
                if (error in last) if error else last == "":
                    return


async def test_a_configuration_that_comes_goes_and_breaks_is_followed(lab: Lab) -> None:
    cni = Followed(lab.conf, [lab.bin], lab.cache)
    await cni.open()
    assert cni.error == f"no network configuration in {lab.conf}"
    with pytest.raises(
        Unavailable, match=r"no network configuration in .*; put one there, or set default_bridge"
    ):
        await cni.add(POD)
    lab.configure()
    await cni.until("")
    assert cni.network is not None and cni.network.name == "net"
    (lab.conf / "10.conflist").write_text("{")
    await cni.until("no valid network configuration")
    lab.configure(file="20.conflist")
    await cni.until("")
    (lab.conf / "20.conflist").unlink()
    (lab.conf / "10.conflist").unlink()
    await cni.until("no network configuration in")
    (lab.conf / "kept").write_text(json.dumps({"cniVersion": "1.0.0", "name": "linked", "type": "one"}))
    (lab.conf / "link.conf").symlink_to("kept")
    await cni.until("")
    await cni.close()


async def test_a_directory_that_is_made_later_is_found(lab: Lab, tmp_path: Path) -> None:
    deep = tmp_path / "etc" / "cni" / "net.d"
    cni = Followed(deep, [lab.bin], lab.cache)
    await cni.open()
    assert cni.error == f"no network configuration in {deep}"
    assert not deep.parent.exists()
    deep.mkdir(parents=True)
    (deep / "a.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "late", "type": "one"}))
    await cni.until("")
    (deep / "a.conf").unlink()
    deep.rmdir()
    await cni.until("no network configuration in")
    deep.mkdir()
    (deep / "b.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "again", "type": "one"}))
    await cni.until("")
    await cni.close()


async def test_chmod_and_foreign_files_change_nothing(lab: Lab) -> None:
    lab.configure()
    cni = Followed(lab.conf, [lab.bin], lab.cache)
    await cni.open()
    (lab.conf / "10.conflist").chmod(0o600)
    (lab.conf / "notes.txt").write_text("x")
    assert cni.loads.qsize() == 1
    await asyncio.sleep(0)
    assert cni.loads.qsize() == 1
    lab.configure(file="99.conflist")
    await cni.loads.get()
    await cni.until("")
    assert cni.loads.empty()
    await cni.close()
