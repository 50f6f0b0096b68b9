"""What counts as an image reference, and what it means in full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from podwright.errors import InvalidArgument
from podwright.images.references import (
    LocalSource,
    image_id_prefix,
    local_name,
    parse,
    parse_local,
    registry_of,
)

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("Registry/app", "Registry/app:latest"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"quay.io/a/b:v1@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        ("a/b__c/d-e.f:_T.-", "docker.io/a/b__c/d-e.f:_T.-"),
        ("oci:latest", "docker.io/library/oci:latest"),
        ("dir:5000/app", "dir:5000/app:latest"),
    ],
)
def test_defaults_of_a_reference(text: str, full: str) -> None:
    assert str(parse(text)) == full
    assert str(parse(full)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Busybox",
        "team/App",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:b:c",
        "a: b",
        "a b",
        "a@sha256:short",
        "a@md5:0123",
        f"a@{DIGEST.upper()}",
        HEX,
        DIGEST,
        "a:" + "t" * 129,
        "a" * 256,
        "-a/b",
        "host..name/a",
        "a\n",
        "http://host/a",
        "../a",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


@given(some.text(alphabet="aB0.:/@_-[]%~ \n\0", max_size=40))
def test_parse_accepts_its_own_output_and_never_fails_otherwise(text: str) -> None:
    try:
        full = parse(text)
    except InvalidArgument as error:
        assert error.field == "image.image"
        return
    assert parse(str(full)) == full


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("oci:/srv/layout", LocalSource("oci", "/srv/layout")),
        ("oci:/srv/layout:v1", LocalSource("oci", "/srv/layout", "v1")),
        ("oci:/srv/a:b/layout:v1", LocalSource("oci", "/srv/a:b/layout", "v1")),
        ("oci-archive:/srv/a.tar", LocalSource("oci-archive", "/srv/a.tar")),
        ("docker-archive:/srv/a.tar:x/y:1", LocalSource("docker-archive", "/srv/a.tar", "x/y:1")),
        ("dir:/srv/x", LocalSource("dir", "/srv/x")),
        ("dir:/srv/../etc/x", LocalSource("dir", "/etc/x")),
    ],
)
def test_local_sources(text: str, source: LocalSource) -> None:
    assert parse_local(text) == source
    assert registry_of(text) == ""


def test_a_relative_local_source_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="must be absolute"):
        parse_local("oci:./layout")


@given(some.text(alphabet="aocidr-h5.:/@_", max_size=30))
def test_no_image_name_is_a_local_source(text: str) -> None:
    """A kubelet lets only image names through: none of them may read a file of the host."""
    try:
        parse(text)
    except InvalidArgument:
        return
    assert parse_local(text) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("abc", "abc"),
        (f"sha256:{HEX[:12]}", HEX[:12]),
        (DIGEST, HEX),
        ("ab", None),
        ("", None),
        ("sha256:", None),
        ("ABC", None),
        (f"{HEX}0", None),
    ],
)
def test_beginnings_of_ids(text: str, digits: str | None) -> None:
    assert image_id_prefix(text) == digits


@pytest.mark.parametrize(
    ("transport", "path", "named", "name"),
    [
        ("oci", "/srv/My App", "v2", "localhost/my-app:v2"),
        ("oci", "/srv/app", "", "localhost/app:latest"),
        ("oci-archive", "/srv/app.tar.gz", "", "localhost/app:latest"),
        ("oci", "/srv/app", "quay.io/a/b:v1", "quay.io/a/b:v1"),
        ("docker-archive", "/srv/app.tar", "busybox:1", "docker.io/library/busybox:1"),
        ("dir", "/", "", None),
    ],
)
def test_names_of_local_images(transport: str, path: str, named: str, name: str | None) -> None:
    found = local_name(LocalSource(transport, path), named)
    assert (str(found) if found else None) == name
