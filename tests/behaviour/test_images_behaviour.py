"""Images: pulling with and without credentials, the ways to name one, removal."""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, decoded, rejected
from tests.behaviour.server import Server
from tests.behaviour.stage import PASSWORD, USER, Registry
from tools.oci_image import ARCHITECTURES


def _status(client: Client, name: str) -> cri.ImageStatusResponse:
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
    answer: cri.ImageStatusResponse = client.images.ImageStatus(request)
    return answer


def _pull(client: Client, name: str, auth: cri.AuthConfig | None = None) -> str:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=name), auth=auth)
    return str(client.images.PullImage(request).image_ref)


def _remove(client: Client, name: str) -> None:
    client.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)))


def test_an_absent_image_has_an_empty_status(client: Client) -> None:
    assert not _status(client, "localhost:1/never/pulled:1").HasField("image")


def test_the_image_id_is_the_same_everywhere(client: Client) -> None:
    reference = client.registry.reference("busybox")
    wanted = client.registry.ids["busybox"]
    pulled = _pull(client, reference)
    status = _status(client, reference).image
    assert status.id == wanted
    assert pulled in (wanted, *status.repo_digests)
    listed = {image.id for image in client.images.ListImages(cri.ListImagesRequest()).images}
    assert wanted in listed
    assert client.pod().create("/bin/true").status().image_id == wanted


def test_image_status_tells_names_and_size(client: Client) -> None:
    reference = client.registry.reference("busybox")
    _pull(client, reference)
    image = _status(client, reference).image
    assert list(image.repo_tags) == [reference]
    assert image.size > 100_000
    [digest] = image.repo_digests
    assert digest.startswith(f"{reference.rpartition(':')[0]}@sha256:")


def test_a_verbose_image_status_tells_how_it_was_built(client: Client) -> None:
    request = cri.ImageStatusRequest(image=client.image("stop-signal"), verbose=True)
    info = decoded(client.images.ImageStatus(request).info)
    spec = info["imageSpec"]
    assert spec["config"]["StopSignal"] == "SIGUSR1"
    assert (spec["os"], spec["architecture"]) == ("linux", ARCHITECTURES[platform.machine()])
    if client.server.kernel:
        # Of one layer; a fake node's images have none.
        assert spec["rootfs"] == {"type": "layers", "diff_ids": [info["chainID"]]}


def test_an_image_is_found_by_every_name(client: Client) -> None:
    reference = client.registry.reference("busybox")
    _pull(client, reference)
    image = _status(client, reference).image
    for name in (image.id, image.id.removeprefix("sha256:"), image.id[7:20], image.repo_digests[0]):
        assert _status(client, name).image == image, name
    # A tag beside a digest does not count.
    assert _status(client, image.repo_digests[0].replace("@", ":other@")).image.id == image.id


def test_pulling_by_digest(client: Client) -> None:
    reference = client.registry.reference("entry")
    _pull(client, reference)
    digest = _status(client, reference).image.repo_digests[0]
    _remove(client, reference)
    _pull(client, digest)
    image = _status(client, digest).image
    assert image.id == client.registry.ids["entry"]
    # It has no tag now, and is listed all the same.
    assert not image.repo_tags
    assert image.id in {i.id for i in client.images.ListImages(cri.ListImagesRequest()).images}
    _remove(client, digest)


def test_the_list_can_be_narrowed(client: Client) -> None:
    reference = client.registry.reference("busybox")
    _pull(client, reference)
    _pull(client, client.registry.reference("entry"))
    spec = cri.ImageSpec(image=reference)
    request = cri.ListImagesRequest(filter=cri.ImageFilter(image=spec))
    assert [i.id for i in client.images.ListImages(request).images] == [client.registry.ids["busybox"]]


def test_a_registry_without_the_image_says_not_found(client: Client) -> None:
    with rejected(StatusCode.NOT_FOUND, "no-such"):
        _pull(client, client.registry.reference("no-such"))


def test_a_silent_registry_is_told_as_such(client: Client) -> None:
    # The kubelet keeps the message of this code alone as it is, and looks at how it begins.
    with rejected(StatusCode.UNKNOWN, "RegistryUnavailable:"):
        _pull(client, "localhost:1/test/busybox:1")


def test_an_impossible_reference_is_refused(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT):
        _pull(client, "UPPER/Case:not ok")
    with rejected(StatusCode.INVALID_ARGUMENT):
        _pull(client, "")


def test_pulling_twice_at_once_is_one_image(client: Client) -> None:
    reference = client.registry.reference("nothing")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: _pull(client, reference), range(4)))) == 1


def test_removal_takes_every_name_of_the_image(client: Client) -> None:
    for by_id in (False, True):
        reference = client.registry.reference("entry")
        _pull(client, reference)
        image = _status(client, reference).image
        _remove(client, image.id if by_id else reference)
        for name in (reference, image.id, image.repo_digests[0]):
            assert not _status(client, name).HasField("image")
        _remove(client, reference)


def test_removal_does_not_touch_what_runs(client: Client) -> None:
    container = client.pod().run(image="hollow")
    try:
        _remove(client, client.registry.reference("hollow"))
    except Exception as error:
        assert "container" in str(error)
    assert container.sh("echo still here") == "still here"


def test_removal_of_one_image_leaves_shared_layers(client: Client) -> None:
    _pull(client, client.registry.reference("entry"))
    client.image("busybox")
    _remove(client, client.registry.reference("entry"))
    assert client.once("/bin/echo", "layer is there").output() == "layer is there\n"


def test_image_filesystem_can_be_found(client: Client) -> None:
    client.image("busybox")
    answer = client.images.ImageFsInfo(cri.ImageFsInfoRequest())
    [usage] = answer.image_filesystems
    assert Path(usage.fs_id.mountpoint).is_dir()
    assert usage.used_bytes.value > 100_000
    assert usage.inodes_used.value > 0
    assert usage.timestamp > 0


@pytest.fixture(scope="module")
def private(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with server.private_registry(tmp_path_factory.mktemp("private") / "registry") as private:
        yield private


def _authenticated() -> list[cri.AuthConfig]:
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return [cri.AuthConfig(username=USER, password=PASSWORD), cri.AuthConfig(auth=encoded)]


@pytest.mark.parametrize("auth", _authenticated(), ids=["name", "base64"])
def test_credentials_open_a_private_registry(client: Client, private: Registry, auth: cri.AuthConfig) -> None:
    reference = private.reference("busybox")
    _pull(client, reference, auth)
    assert _status(client, reference).HasField("image")


def test_wrong_or_no_credentials_are_refused(client: Client, private: Registry) -> None:
    reference = private.reference("busybox")
    wrong = cri.AuthConfig(username=USER, password="guess")
    # Credentials for another server must not be sent, so this is anonymous.
    elsewhere = cri.AuthConfig(username=USER, password=PASSWORD, server_address="https://example.org")
    for auth in (None, wrong, elsewhere):
        with pytest.raises(Exception, match=r"(?i)auth|unauthorized|denied|credential") as caught:
            _pull(client, reference, auth)
        assert PASSWORD not in str(caught.value)


def test_credentials_for_this_server_are_sent(client: Client, private: Registry) -> None:
    auth = cri.AuthConfig(username=USER, password=PASSWORD, server_address=f"http://{private.host}")
    _pull(client, private.reference("busybox"), auth)
