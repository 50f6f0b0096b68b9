"""registries.conf and certs.d as skopeo reads them: mirrors, blocked and insecure registries, authorities."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.errors import FailedPrecondition, PodwrightError, RegistryUnavailable
from podwright.images.references import parse
from podwright.images.registries import Registry, entry_for, files, replaced
from podwright.images.remote import opened
from tests.images.conftest import run_registry
from tests.images.layouts import TarMaker, write_layout
from tests.images.scripted import Authority, Reply, Scripted, make_authority, scripted


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with scripted() as started:
        yield started


@pytest.fixture
async def mirror() -> AsyncIterator[Scripted]:
    async with scripted() as started:
        yield started


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "a")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", [TarMaker().add("f", b"content").done()])
    return tmp_path / "layout"


async def layers(name: str, scratch: Path, **config: object) -> int:
    """How many layers the image has that was fetched whole."""
    scratch.mkdir()
    async with opened(parse(name), ImageConfig(**config), None, scratch) as remote:  # type: ignore[arg-type]
        found = (await remote.resolve()).document.layers
        for number, layer in enumerate(found):
            await remote.fetch(layer, scratch / str(number))
    return len(found)


def mirrored(upstream: str, *mirrors: str) -> str:
    text = f'[[registry]]\nprefix = "r.example/team"\nlocation = "{upstream}"\ninsecure = true\n'
    return text + "".join(f'[[registry.mirror]]\nlocation = "{each}"\ninsecure = true\n' for each in mirrors)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.root
async def test_a_mirror_that_has_the_image_is_used(
    upstream: Scripted, mirror: Scripted, layout: Path, tmp_path: Path
) -> None:
    mirror.add(layout, "copies/a")
    conf = tmp_path / "registries.conf"
    conf.write_text(mirrored(f"{upstream.address}/real", f"{mirror.address}/copies"))
    assert await layers("r.example/team/a:v1", tmp_path / "s", registries_conf=str(conf)) == 1
    assert upstream.asked == [] and mirror.targets("GET /v2/copies/a/blobs/")


@pytest.mark.root
async def test_after_mirrors_that_fail_the_registry_itself_is_asked_under_its_other_location(
    upstream: Scripted, mirror: Scripted, layout: Path, tmp_path: Path
) -> None:
    upstream.add(layout, "real/a")
    conf = tmp_path / "registries.conf"
    conf.write_text(mirrored(f"{upstream.address}/real", closed_port(), mirror.address))
    assert await layers("r.example/team/a:v1", tmp_path / "s", registries_conf=str(conf)) == 1
    assert mirror.targets("GET /v2/a/manifests/v1") and upstream.targets("GET /v2/real/a/blobs/")


@pytest.mark.root
async def test_when_all_fail_each_has_a_line_in_the_error(
    upstream: Scripted, mirror: Scripted, tmp_path: Path
) -> None:
    mirror.on("/manifests/", Reply(503))
    conf, dead, gone = tmp_path / "registries.conf", closed_port(), closed_port()
    conf.write_text(mirrored(gone, dead, mirror.address))
    with pytest.raises(RegistryUnavailable) as caught:
        await layers("r.example/team/a:v1", tmp_path / "s", registries_conf=str(conf))
    first, *tried = str(caught.value).splitlines()
    assert first.startswith("RegistryUnavailable: r.example/team/a:v1: ") and "connection refused" in first
    assert [line.split(": ")[0] for line in tried] == [
        f"  tried {scheme}://{host}" for host in (dead, mirror.address, gone) for scheme in ("https", "http")
    ]
    assert all("connection refused" in line for line in (*tried[:2], *tried[4:]))
    assert "503" not in tried[2] and "503" in tried[3]
    assert all(line.endswith(" (credentials: none)") for line in tried)


@pytest.mark.root
async def test_a_blocked_registry_is_not_asked(upstream: Scripted, layout: Path, tmp_path: Path) -> None:
    upstream.add(layout, "a")
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{upstream.address}"\nblocked = true\n')
    with pytest.raises(FailedPrecondition, match=rf"is blocked in {conf} or") as caught:
        await layers(f"{upstream.address}/a:v1", tmp_path / "s", registries_conf=str(conf))
    assert upstream.asked == [] and "home" not in str(caught.value)


@pytest.mark.root
async def test_drop_ins_are_added_and_the_last_one_counts(
    upstream: Scripted, mirror: Scripted, layout: Path, tmp_path: Path
) -> None:
    upstream.add(layout, "a")
    conf, drop_ins = tmp_path / "registries.conf", tmp_path / "registries.conf.d"
    conf.write_text(mirrored(closed_port()))
    drop_ins.mkdir()
    (drop_ins / "10-first.conf").write_text(mirrored(mirror.address))
    (drop_ins / "20-second.conf").write_text(mirrored(upstream.address))
    (drop_ins / "30-not-read.txt").write_text("no TOML")
    assert await layers("r.example/team/a:v1", tmp_path / "s", registries_conf=str(conf)) == 1
    assert mirror.asked == []


@pytest.mark.root
async def test_insecure_is_for_the_registry_that_says_so(
    authority: Authority, layout: Path, tmp_path: Path
) -> None:
    """A certificate of nobody's is taken where the entry says `insecure = true`, and nowhere else."""
    async with scripted(authority.context()) as registry:
        registry.add(layout, "a")
        conf = tmp_path / "registries.conf"
        entry = f'[[registry]]\nprefix = "r.example"\nlocation = "127.0.0.1:{registry.port}"\n'
        conf.write_text(entry)
        with pytest.raises(PodwrightError, match=r"x509: .*\n.*\n.*images\.certs_dir"):
            await layers("r.example/a:v1", tmp_path / "1", registries_conf=str(conf))
        conf.write_text(f"{entry}insecure = true\n")
        assert await layers("r.example/a:v1", tmp_path / "2", registries_conf=str(conf)) == 1


@pytest.mark.root
async def test_a_registry_in_insecure_registries_may_speak_plain_http(
    upstream: Scripted, layout: Path, tmp_path: Path
) -> None:
    upstream.add(layout, "a")
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nprefix = "r.example"\nlocation = "{upstream.address}"\n')
    with pytest.raises(PodwrightError):
        await layers("r.example/a:v1", tmp_path / "1", registries_conf=str(conf))
    config = {"registries_conf": str(conf), "insecure_registries": ["r.example"]}
    assert await layers("r.example/a:v1", tmp_path / "2", **config) == 1


@pytest.mark.root
async def test_an_authority_in_certs_d_is_believed_for_its_registry(
    authority: Authority, layout: Path, tmp_path: Path
) -> None:
    tls = f", tls: {{certificate: {authority.certificate}, key: {authority.key}}}"
    with run_registry(tmp_path / "registry", tls) as registry:
        registry.push(layout, "a:v1")
        conf = tmp_path / "registries.conf"
        conf.write_text(f'[[registry]]\nprefix = "r.example"\nlocation = "{registry.address}"\n')
        wrong = authority.certs_dir(tmp_path / "wrong", "127.0.0.1:1")
        config = {"registries_conf": str(conf), "certs_dir": str(wrong)}
        with pytest.raises(PodwrightError, match="x509: certificate signed by unknown authority"):
            await layers("r.example/a:v1", tmp_path / "1", **config)
        config["certs_dir"] = str(authority.certs_dir(tmp_path / "right", registry.address))
        assert await layers("r.example/a:v1", tmp_path / "2", **config) == 1


@pytest.mark.root
async def test_a_registries_conf_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"images\.registries_conf: there is no file"):
        await layers("r.example/a:v1", tmp_path / "s", registries_conf=str(tmp_path / "absent"))


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "reason"),
    [("[[registry", "toml: "), ('[[registry]]\nlocation = "https://x"\n', "URI schemes are not supported")],
)
async def test_a_registries_conf_that_is_broken_is_named(tmp_path: Path, text: str, reason: str) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(text)
    with pytest.raises(FailedPrecondition, match=rf"{conf}.*{reason}.*images\.registries_conf") as caught:
        await layers("r.example/team/a:v1", tmp_path / "s", registries_conf=str(conf))
    assert str(caught.value).count("loading registries configuration") == 1


# What is read of it here


@pytest.mark.parametrize(
    ("name", "location"),
    [
        ("r.example/team/a", "team.example"),
        ("r.example/teams/a", "whole.example"),
        ("r.example/a", "whole.example"),
        ("r.example:5000/a", "whole.example"),
        ("x.wild.example/a", ""),
        ("wild.example/a", "wild.example"),
        ("r.example/team/a/b", "exact.example"),
        ("docker.io/library/a", "docker.io"),
    ],
)
def test_the_longest_prefix_that_fits_counts(tmp_path: Path, name: str, location: str) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "whole.example"\nprefix = "r.example"\n'
        '[[registry]]\nlocation = "team.example"\nprefix = "r.example/team"\n'
        '[[registry]]\nlocation = "exact.example"\nprefix = "r.example/team/a/b"\n'
        '[[registry]]\nprefix = "*.wild.example"\ninsecure = true\n'
    )
    assert entry_for(name, files(str(conf))).location == location


def test_an_entry_is_written_as_it_was_read(tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "r.example"\nblocked = true\n'
        '[[registry.mirror]]\nlocation = "m.example/\\"x"\ninsecure = true\n'
        'pull-from-mirror = "digest-only"\n'
    )
    entry = entry_for("r.example/a", [conf])
    conf.write_text(replaced(entry, "127.0.0.1:1/abc"))
    assert entry_for("r.example/a", [conf]) == Registry(
        "r.example", "127.0.0.1:1/abc", True, True, entry.mirrors
    )
    assert entry.mirrors[0]["pull-from-mirror"] == "digest-only"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text("[[registry")
    with pytest.raises(FailedPrecondition, match=rf"{tmp_path}/registries.conf: registries cannot be read"):
        entry_for("a/b", files(str(tmp_path / "registries.conf")))
