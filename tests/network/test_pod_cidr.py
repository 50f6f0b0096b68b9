"""The network configuration that is made of a template once the pods' addresses are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.network.cni import Cni
from podwright.network.pod_cidr import FILE, parse, write

TEMPLATE = """{"cniVersion": "1.0.0", "name": "made", "plugins": [{"type": "one", "ipam": {
  "ranges": [{{range $i, $r := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$r}}"}]{{end}}],
  "first": "{{.PodCIDR}}",
  "routes": [{{range $i, $r := .Routes}}{{if $i}}, {{end}}{"dst": "{{$r}}"}{{end}}]}}]}
"""
OTHER = '{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "one"}]}'


@pytest.fixture
def template(tmp_path: Path) -> Path:
    file = tmp_path / "template"
    file.write_text(TEMPLATE)
    return file


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "net.d"


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", ()),
        (" ", ()),
        ("10.1.0.0/16", ("10.1.0.0/16",)),
        ("10.1.0.0/16, fd00:0::/64", ("10.1.0.0/16", "fd00::/64")),
        ("10.1.2.3/16", ("10.1.0.0/16",)),
    ],
)
def test_networks_are_read(text: str, networks: tuple[str, ...]) -> None:
    assert parse(text, "f") == networks


@pytest.mark.parametrize("text", ["10.1.0.0/33", "pods", "10.1.0.0/16,", "10.1.0.0/16 fd00::/64"])
def test_what_is_no_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^pod_cidr: "):
        parse(text, "pod_cidr")


def test_a_configuration_is_made_once_and_again_only_for_other_networks(conf: Path, template: Path) -> None:
    assert write(conf, template, ["10.1.0.0/16", "fd00::/64"])
    file = conf / FILE
    [plugin] = json.loads(file.read_text())["plugins"]
    assert plugin["ipam"] == {
        "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]],
        "first": "10.1.0.0/16",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat()
    assert not write(conf, template, ["10.1.0.0/16", "fd00::/64"])
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert write(conf, template, ["10.2.0.0/16"])
    assert json.loads(file.read_text())["plugins"][0]["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert [each.name for each in conf.iterdir()] == [FILE]


def test_somebody_elses_configuration_is_left_alone(conf: Path, template: Path) -> None:
    conf.mkdir()
    other = conf / "05-other.conflist"
    other.write_text(OTHER)
    assert not write(conf, template, ["10.1.0.0/16"])
    assert [each.name for each in conf.iterdir()] == [other.name]
    # One that cannot be used holds nothing; one that comes later does not hold while ours is there.
    other.write_text("{")
    assert write(conf, template, ["10.1.0.0/16"])
    (conf / "90-later.conflist").write_text(OTHER)
    assert write(conf, template, ["10.2.0.0/16"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Nothing}}", "line 1: '.Nothing' is not known"),
        ("{{.PodCIDR}}", "is no JSON"),
        ("{}", "the network's name None"),
        ('{"cniVersion": "1.0.0", "name": "{{.PodCIDR}}", "plugins": [{"type": "x"}]}', "name '10.1.0.0/16'"),
    ],
)
def test_a_bad_template_is_told_and_writes_nothing(conf: Path, template: Path, text: str, words: str) -> None:
    template.write_text(text)
    with pytest.raises(FailedPrecondition, match=words) as caught:
        write(conf, template, ["10.1.0.0/16"])
    assert f"cni.conf_template: {template}: " in str(caught.value)
    assert not conf.exists()
    template.unlink()
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        write(conf, template, ["10.1.0.0/16"])


async def test_the_network_is_ready_once_its_addresses_are_known(
    tmp_path: Path, conf: Path, template: Path
) -> None:
    plugins = tmp_path / "bin"
    plugins.mkdir()
    (plugins / "one").write_text("#!/bin/sh\n")
    (plugins / "one").chmod(0o755)
    cni = Cni(conf, [plugins], tmp_path / "cache", conf_template=template)
    await cni.open()
    try:
        assert "no network configuration" in cni.error
        await cni.use_pod_cidrs(["10.1.0.0/16"])
        assert cni.error == ""
        assert cni.network is not None and cni.network.name == "made"
        await cni.use_pod_cidrs(["10.2.0.0/16"])
        assert cni.network.plugins[0]["ipam"]["first"] == "10.2.0.0/16"
        assert list(cni.pod_cidrs) == ["10.2.0.0/16"]
        template.write_text("{{")
        with pytest.raises(FailedPrecondition):
            await cni.use_pod_cidrs(["10.3.0.0/16"])
        assert list(cni.pod_cidrs) == ["10.2.0.0/16"]
    finally:
        await cni.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{{if}", "has no }}"),
        ("{{range .Routes}}", "has no {{end}}"),
        ("{{else}}", "belongs to no"),
    ],
)
async def test_a_template_that_can_never_work_is_refused_at_the_start(
    tmp_path: Path, conf: Path, text: str | None, words: str
) -> None:
    template = tmp_path / "given.template"
    if text is not None:
        template.write_text(text)
    cni = Cni(conf, [], tmp_path / "cache", conf_template=template)
    with pytest.raises(FailedPrecondition) as caught:
        await cni.open()
    assert str(caught.value).startswith(f"cni.conf_template: {template}") and words in str(caught.value)


async def test_without_a_template_nothing_is_written(tmp_path: Path, conf: Path) -> None:
    cni = Cni(conf, [], tmp_path / "cache")
    await cni.use_pod_cidrs(["10.1.0.0/16"])
    assert not conf.exists()
    # Plugins that ask for it get it all the same.
    assert list(cni.pod_cidrs) == ["10.1.0.0/16"]
