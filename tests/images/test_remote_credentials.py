"""All forms of credentials, before registries that look at them; no secret goes where it is not meant to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.core.images import credentials_for
from podwright.engines.base import Credentials
from podwright.errors import PodwrightError, RegistryUnavailable
from podwright.images.references import parse
from podwright.images.remote import opened
from podwright.wire import cri_pb2 as cri
from tests.images.conftest import Registry, run_registry
from tests.images.layouts import TarMaker, write_layout
from tests.images.scripted import Asked, Authority, Reply, Scripted, make_authority, scripted

pytestmark = pytest.mark.root


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", [TarMaker().add("f", tmp_path.name.encode()).done()])
    return tmp_path / "layout"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "a")


async def pulled(
    name: str, scratch: Path, credentials: Credentials | None = None, **config: object
) -> list[bytes]:
    """The image's layers."""
    scratch.mkdir()
    images = ImageConfig(**config)  # type: ignore[arg-type]
    async with opened(parse(name), images, credentials, scratch) as remote:
        layers = (await remote.resolve()).document.layers
        await asyncio.gather(*(remote.fetch(each, scratch / str(n)) for n, each in enumerate(layers)))
    return [(scratch / str(n)).read_bytes() for n in range(len(layers))]


def served(layout: Path) -> list[bytes]:
    manifest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    blobs = layout / "blobs/sha256"
    layers = json.loads((blobs / manifest.removeprefix("sha256:")).read_bytes())["layers"]
    return [(blobs / each["digest"].removeprefix("sha256:")).read_bytes() for each in layers]


def from_auth(reference: str, **fields: str) -> Credentials | None:
    return credentials_for(reference, cri.AuthConfig(**fields))


async def test_a_name_and_password_in_either_form(
    private_registry: Registry, layout: Path, tmp_path: Path
) -> None:
    private_registry.push(layout, "a:v1", "--dest-creds=reader:secret")
    name = f"{private_registry.address}/a:v1"
    encoded = base64.b64encode(b"reader:secret").decode()
    for n, fields in enumerate(
        ({"username": "reader", "password": "secret"}, {"auth": encoded}, {"auth": f"{encoded}\0\0"})
    ):
        for address in ("", private_registry.address, f"http://{private_registry.address}/v2/"):
            scratch = tmp_path / f"{n}-{len(address)}"
            credentials = from_auth(name, server_address=address, **fields)
            assert await pulled(name, scratch, credentials) == served(layout)


async def test_credentials_for_another_host_are_not_used(
    private_registry: Registry, layout: Path, tmp_path: Path
) -> None:
    private_registry.push(layout, "a:v1", "--dest-creds=reader:secret")
    name = f"{private_registry.address}/a:v1"
    fields = {
        "username": "reader",
        "password": "secret",
        "server_address": "https://reader:secret@other.example/v1",
    }
    words = r"(?s)check the pull secret.*\(credentials: none \(the call's are for other\.example\)\)$"
    with pytest.raises(PodwrightError, match=words) as caught:
        await pulled(name, tmp_path / "s", from_auth(name, **fields))
    assert "secret" not in str(caught.value).replace("pull secret", "")


async def test_an_error_says_whose_credentials_were_refused(
    private_registry: Registry, layout: Path, tmp_path: Path
) -> None:
    private_registry.push(layout, "a:v1", "--dest-creds=reader:secret")
    host = private_registry.address
    words = r"(?s)tried http://127\.0\.0\.1:\d+: .*unauthorized.* \(credentials: {}\)"
    with pytest.raises(PodwrightError, match=words.format("the call's username reader")) as caught:
        await pulled(f"{host}/a:v1", tmp_path / "a", Credentials("reader", "wr0ng"))
    assert "wr0ng" not in str(caught.value)

    with pytest.raises(PodwrightError, match=words.format("the call's password, without a username")):
        await pulled(f"{host}/a:v1", tmp_path / "c", Credentials("", "secret"))

    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(b"reader:wr0ng").decode()}}}))
    with pytest.raises(PodwrightError, match=words.format(f"images.authfile {file}")):
        await pulled(f"{host}/a:v1", tmp_path / "b", authfile=str(file))


async def test_a_credential_helper_of_the_authfile_is_asked(
    private_registry: Registry, layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_registry.push(layout, "a:v1", "--dest-creds=reader:secret")
    host = private_registry.address
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()

    def gives(password: str) -> None:
        answer = json.dumps({"ServerURL": host, "Username": "reader", "Secret": password})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
        helper.chmod(0o755)

    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"credHelpers": {host: "test"}}))
    gives("secret")
    assert await pulled(f"{host}/a:v1", tmp_path / "a", authfile=str(file)) == served(layout)
    gives("wr0ng")
    with pytest.raises(PodwrightError, match=rf"\(credentials: credential helper test of {file}\)"):
        await pulled(f"{host}/a:v1", tmp_path / "b", authfile=str(file))


# Tokens


class Tokens:
    """A token service beside a docker-registry that believes it."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        lines = authority.certificate.read_text().splitlines()
        self._chain = "".join(lines[1 : lines.index("-----END CERTIFICATE-----")])
        self.asked: list[Asked] = []

    def token(self, repository: str) -> str:
        now = int(time.time())
        access = [{"type": "repository", "name": repository, "actions": ["pull", "push"]}]
        claims: dict[str, object] = {
            "iss": "tokens",
            "aud": "registry",
            "sub": "",
            "jti": "1",
            "access": access,
        }
        claims |= {"iat": now, "nbf": now - 60, "exp": now + 600}
        text = ".".join(
            _url(json.dumps(part).encode())
            for part in ({"typ": "JWT", "alg": "RS256", "x5c": [self._chain]}, claims)
        )
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._authority.key)]
        signed = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_url(signed)}"

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        basic = f"Basic {base64.b64encode(b'reader:secret').decode()}"
        if asked.method == "POST":
            if b"refresh_token=refresh-me" in asked.body:
                return Reply(200, json.dumps({"access_token": self.token("a")}).encode())
        elif asked.headers.get("authorization") == basic:
            return Reply(200, json.dumps({"token": self.token("a")}).encode())
        return Reply(401, b"{}")


def _url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@asynccontextmanager
async def token_registry(
    directory: Path, authority: Authority, layout: Path
) -> AsyncIterator[tuple[Registry, Tokens]]:
    tokens = Tokens(authority)
    async with scripted() as service:
        service.on("/token", tokens.answer)
        auth = (
            f"auth: {{token: {{realm: 'http://{service.address}/token', service: registry, issuer: tokens, "
            f"rootcertbundle: {authority.ca}}}}}\n"
        )
        with run_registry(directory, auth=auth) as registry:
            await asyncio.to_thread(registry.push, layout, "a:v1", "--dest-creds=reader:secret")
            tokens.asked.clear()
            yield registry, tokens


async def test_each_form_opens_a_registry_that_wants_tokens(
    authority: Authority, layout: Path, tmp_path: Path
) -> None:
    async with token_registry(tmp_path / "registry", authority, layout) as (registry, tokens):
        name = f"{registry.address}/a:v1"
        with pytest.raises(PodwrightError, match="check the pull secret"):
            await pulled(name, tmp_path / "none")
        password = from_auth(name, username="reader", password="secret")
        assert await pulled(name, tmp_path / "password", password) == served(layout)
        identity = from_auth(name, identity_token="refresh-me")
        assert await pulled(name, tmp_path / "identity", identity) == served(layout)
        assert any(each.method == "POST" for each in tokens.asked)

        tokens.asked.clear()
        bearer = from_auth(name, registry_token=tokens.token("a"))
        assert await pulled(name, tmp_path / "bearer", bearer) == served(layout)
        assert tokens.asked == []
        refused = from_auth(name, registry_token="n0t.a.t0ken")
        with pytest.raises(PodwrightError, match="credentials: the call's registry token") as caught:
            await pulled(name, tmp_path / "refused", refused)
        assert "check the pull secret" in str(caught.value) and "n0t" not in str(caught.value)
        assert f"tried http://{registry.address}: " in str(caught.value)


# The gate that a bearer token goes through

TOKEN = "t0ps3cret"


@pytest.fixture
async def guarded() -> AsyncIterator[Scripted]:
    """Opens to the bearer of TOKEN only."""
    async with scripted() as registry:

        def unauthorized(asked: Asked) -> Reply | None:
            return None if asked.headers.get("authorization") == f"Bearer {TOKEN}" else Reply(401)

        registry.on("/v2/.+", unauthorized)
        yield registry


async def test_a_bearer_token_is_in_nobodys_reach(guarded: Scripted, layout: Path, tmp_path: Path) -> None:
    guarded.add(layout, "a")
    seen: list[str] = []

    def look() -> None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                parent = (file.parent / "status").read_text()
                if f"\nPPid:\t{os.getpid()}\n" in parent:
                    seen.append(file.read_text() + (file.parent / "environ").read_text())
            except OSError:
                pass

    credentials = Credentials(registry_token=TOKEN)
    scratch = tmp_path / "s"
    scratch.mkdir()
    async with opened(parse(f"{guarded.address}/a:v1"), ImageConfig(), credentials, scratch) as remote:
        layer = (await remote.resolve()).document.layers[0]
        await remote.fetch(layer, scratch / "layer")
        look()
        private = next((scratch / "home/.config/containers/registries.conf.d").glob("*gate*"))
        assert private.stat().st_mode & 0o777 == 0o600 and scratch.joinpath("home").stat().st_mode & 0o77 == 0
        place = re.search(r'location = "127\.0\.0\.1:(\d+)/([0-9a-f]{32})"', private.read_text())
        assert place is not None
        port, secret = int(place[1]), place[2]
        # Who does not know the path gets nothing out of it.
        for path in ("/v2/a/manifests/v1", "/v2/x/a/manifests/v1", f"/{secret}/a"):
            assert b" 404 " in await raw_answer(port, path)
        assert b" 200 " in await raw_answer(port, f"/v2/{secret}/manifests/v1".replace(secret, f"{secret}/a"))
    assert any("experimental-image-proxy" in each for each in seen)
    assert not any(TOKEN in each or secret in each for each in seen)
    with pytest.raises(ConnectionRefusedError):
        await raw_answer(port, "/v2/")


async def raw_answer(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_bearer_token_does_not_follow_to_where_blobs_are_stored(
    guarded: Scripted, layout: Path, tmp_path: Path
) -> None:
    guarded.add(layout, "a")
    async with scripted() as storage:
        for digest, content in guarded.blobs.items():
            storage.on(f"/stored/{digest}", Reply(200, content))

        def away(asked: Asked) -> Reply:
            digest = asked.target.rpartition("/")[2]
            return Reply(
                307, headers={"Location": f"http://{storage.address}/stored/{digest}?X-Signature=s1"}
            )

        guarded.rules.insert(0, guarded.rules.pop())
        guarded.rules.insert(0, lambda asked: away(asked) if "/blobs/" in asked.target else None)
        layers = await pulled(f"{guarded.address}/a:v1", tmp_path / "s", Credentials(registry_token=TOKEN))
        assert layers == served(layout)
        assert [each.headers.get("authorization") for each in storage.asked] == [None]
        storage.rules.clear()
        with pytest.raises(PodwrightError) as caught:
            await pulled(f"{guarded.address}/a:v1", tmp_path / "t", Credentials(registry_token=TOKEN))
        assert "s1" not in str(caught.value) and TOKEN not in str(caught.value)


async def test_the_gate_verifies_the_registrys_certificate(
    authority: Authority, layout: Path, tmp_path: Path
) -> None:
    async with scripted(authority.context()) as registry:
        registry.add(layout, "a")
        # 127.0.0.1 is trusted as it stands; this name of the same host is not.
        name = f"localhost.localdomain:{registry.port}"
        conf = tmp_path / "registries.conf"
        conf.write_text(f'[[registry]]\nprefix = "r.example"\nlocation = "localhost:{registry.port}"\n')
        token = Credentials(registry_token=TOKEN)
        with pytest.raises(PodwrightError, match=r"certificate.*images\.certs_dir") as caught:
            await pulled("r.example/a:v1", tmp_path / "1", token, registries_conf=str(conf))
        assert f"tried https://localhost:{registry.port}: " in str(caught.value), name
        assert registry.asked == []
        certs = authority.certs_dir(tmp_path / "certs.d", f"localhost:{registry.port}")
        config = {"registries_conf": str(conf), "certs_dir": str(certs)}
        assert await pulled("r.example/a:v1", tmp_path / "2", token, **config) == served(layout)
        assert {each.headers.get("authorization") for each in registry.asked} == {f"Bearer {TOKEN}"}
        conf.write_text(conf.read_text() + "insecure = true\n")
        assert await pulled("r.example/a:v1", tmp_path / "3", token, registries_conf=str(conf))


async def test_mirrors_are_asked_first_and_never_see_the_token(
    guarded: Scripted, layout: Path, tmp_path: Path
) -> None:
    guarded.add(layout, "deep/a")
    async with scripted() as mirror:
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nprefix = "r.example/sub"\nlocation = "{guarded.address}/deep"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}/copies"\ninsecure = true\n'
        )
        token = Credentials(registry_token=TOKEN)
        name = "r.example/sub/a:v1"
        assert await pulled(name, tmp_path / "1", token, registries_conf=str(conf)) == served(layout)
        assert mirror.targets("/v2/copies/a/manifests/v1") and guarded.targets("/v2/deep/a/blobs/")
        assert not any("authorization" in each.headers for each in mirror.asked)
        mirror.add(layout, "copies/a")
        guarded.asked.clear()
        assert await pulled(name, tmp_path / "2", token, registries_conf=str(conf)) == served(layout)
        assert guarded.asked == []
        assert not any("authorization" in each.headers for each in mirror.asked)


async def test_of_the_gate_itself_an_error_says_nothing(tmp_path: Path) -> None:
    async with scripted() as registry:
        registry.on("/v2/.+", Reply(401))
        with pytest.raises(PodwrightError, match="check the pull secret") as caught:
            await pulled(f"{registry.address}/a:v1", tmp_path / "s", Credentials(registry_token=TOKEN))
        _, *tried = str(caught.value).splitlines()
        assert len(tried) == 1 and "EOF" not in tried[0]
        assert tried[0].startswith(f"  tried http://{registry.address}: ")
        assert tried[0].endswith("(credentials: the call's registry token)")


@pytest.mark.parametrize("status", [502, 503])
async def test_through_the_gate_a_registry_that_is_away_is_unavailable(
    tmp_path: Path, layout: Path, status: int
) -> None:
    token = Credentials(registry_token=TOKEN)
    async with scripted() as registry:
        registry.add(layout, "a")
        registry.on("/v2/.+", Reply(status))
        with pytest.raises(RegistryUnavailable, match=rf"^RegistryUnavailable: .*{registry.address}"):
            await pulled(f"{registry.address}/a:v1", tmp_path / "s", token)
        registry.rules.clear()
        registry.on("/blobs/", lambda asked: Reply(200, b"half", length=100))
        with pytest.raises(RegistryUnavailable, match="unexpected EOF"):
            await pulled(f"{registry.address}/a:v1", tmp_path / "t", token)
    with pytest.raises(RegistryUnavailable, match="connection refused") as caught:
        await pulled(f"{registry.address}/a:v1", tmp_path / "u", token)
    assert "credentials: the call's registry token" in str(caught.value)
