"""The signature policy is asked before any layer is fetched: GPG keys, identities, scopes, all sources."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.errors import FailedPrecondition, PodwrightError, SignatureValidationFailed
from podwright.images.references import parse, parse_local
from podwright.images.remote import opened
from podwright.images.signatures import accepts_anything
from tests.images.conftest import Registry
from tests.images.layouts import TarMaker, write_layout
from tests.images.scripted import INDEX

pytestmark = pytest.mark.root

ANYTHING = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}


@dataclass(frozen=True)
class Signer:
    home: Path
    fingerprint: str
    public: Path

    def sign(self, layout: Path, registry: Registry, name: str, lookaside: Path, *options: str) -> None:
        command = ["skopeo", "--registries.d", str(lookaside), "copy", "-q", "--dest-tls-verify=false"]
        command += ["--sign-by", self.fingerprint, *options]
        command += [f"oci:{layout}:v1", f"docker://{registry.address}/{name}"]
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        subprocess.run(command, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Signer, Signer]]:
    made = []
    # A socket's path is short: gpg's home must be, too.
    for name in ("a", "b"):
        home = tmp_path_factory.mktemp(name)
        home.chmod(0o700)
        gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
        create = [
            *gpg,
            "--passphrase",
            "",
            "--quick-generate-key",
            f"{name}@test",
            "rsa2048",
            "sign",
            "never",
        ]
        subprocess.run(create, check=True, capture_output=True)
        shown = subprocess.run([*gpg, "--list-keys", "--with-colons"], check=True, capture_output=True)
        fingerprint = next(
            line.split(":")[9] for line in shown.stdout.decode().splitlines() if "fpr:" in line
        )
        export = [*gpg, "--armor", "--output", str(home / "public"), "--export", fingerprint]
        subprocess.run(export, check=True, capture_output=True)
        made.append(Signer(home, fingerprint, home / "public"))
    yield made[0], made[1]
    for signer in made:
        subprocess.run(["gpgconf", "--homedir", str(signer.home), "--kill", "all"], check=True)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    layers = [TarMaker().add("f", f"{tmp_path}{n}".encode()).done() for n in range(3)]
    write_layout(tmp_path / "layout", layers)
    return tmp_path / "layout"


@pytest.fixture
def lookaside(tmp_path: Path) -> Path:
    """A registries.d that keeps signatures in a directory."""
    (tmp_path / "registries.d").mkdir()
    store = f"file://{tmp_path}/signatures"
    # The older and the newer names of the same two settings.
    keys = ("lookaside", "lookaside-staging", "sigstore", "sigstore-staging")
    lines = "".join(f"  {key}: {store}\n" for key in keys)
    (tmp_path / "registries.d/default.yaml").write_text(f"default-docker:\n{lines}")
    return tmp_path / "registries.d"


class Gatekeeper:
    def __init__(self, top: Path, registry: Registry, lookaside: Path) -> None:
        self._top = top
        self._registry = registry
        self._lookaside = lookaside
        self._number = 0

    def policy(self, *default: object, **transports: object) -> None:
        tree = {"default": default, "transports": transports}
        (self._top / "policy.json").write_text(json.dumps(tree))

    async def judge(self, name: str, platform: str = "") -> None:
        """Raise what is said against `name`; no layer is fetched for that."""
        source = parse_local(name) or parse(f"{self._registry.address}/{name}")
        self._number += 1
        scratch = self._top / f"scratch-{self._number}"
        scratch.mkdir()
        images = ImageConfig(
            policy=str(self._top / "policy.json"), registries_d=str(self._lookaside), platform=platform
        )
        before = self._registry.blob_requests()
        layers: set[str] = set()
        try:
            async with opened(source, images, None, scratch) as remote:
                found = await remote.resolve()
                layers = {each.digest for each in found.document.layers}
                await remote.check_policy(found)
        finally:
            assert list(scratch.iterdir()) == []
            assert layers.isdisjoint(self._registry.blob_requests()[len(before) :])


@pytest.fixture
def keeper(tmp_path: Path, registry: Registry, lookaside: Path) -> Gatekeeper:
    return Gatekeeper(tmp_path, registry, lookaside)


def signed_by(*signers: Signer) -> dict[str, object]:
    keys = {"keyPath": str(signers[0].public)}
    return {"type": "signedBy", "keyType": "GPGKeys", **keys}


@pytest.mark.parametrize("format", ["oci", "v2s2"])
async def test_a_signed_image_is_let_in_and_another_is_not(
    keeper: Gatekeeper,
    signers: tuple[Signer, Signer],
    registry: Registry,
    layout: Path,
    lookaside: Path,
    format: str,
) -> None:
    ours, other = signers
    repository = f"signed-{format}"
    ours.sign(layout, registry, f"{repository}:ours", lookaside, f"--format={format}")
    other.sign(layout, registry, f"{repository}-other:v1", lookaside, f"--format={format}")
    registry.push(layout, f"{repository}-unsigned:v1", f"--format={format}")
    keeper.policy(signed_by(ours))
    await keeper.judge(f"{repository}:ours")
    with pytest.raises(SignatureValidationFailed, match=r"^SignatureValidationFailed: .*no signature exists"):
        await keeper.judge(f"{repository}-unsigned:v1")
    with pytest.raises(SignatureValidationFailed, match="Invalid GPG signature"):
        await keeper.judge(f"{repository}-other:v1")


async def test_a_signature_is_for_its_name(
    keeper: Gatekeeper, signers: tuple[Signer, Signer], registry: Registry, layout: Path, lookaside: Path
) -> None:
    """What was signed as v1 is not let in as v2, and not elsewhere; by its digest it is."""
    signers[0].sign(layout, registry, "named:v1", lookaside)
    registry.push(layout, "named:v2")
    keeper.policy(signed_by(signers[0]))
    with pytest.raises(
        SignatureValidationFailed, match=r"Signature for identity \S+/named:v1 is not accepted"
    ):
        await keeper.judge("named:v2")
    manifest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    await keeper.judge(f"named@{manifest}")
    registry.push(layout, "elsewhere:v1")
    with pytest.raises(SignatureValidationFailed):
        await keeper.judge("elsewhere:v1")


async def test_scopes_of_the_policy_count(keeper: Gatekeeper, registry: Registry, layout: Path) -> None:
    registry.push(layout, "scoped/in:v1")
    registry.push(layout, "out:v1")
    keeper.policy(REJECT, docker={f"{registry.address}/scoped": [ANYTHING]})
    await keeper.judge("scoped/in:v1")
    with pytest.raises(SignatureValidationFailed, match=r"/out:v1 is rejected by policy"):
        await keeper.judge("out:v1")


async def test_of_an_index_the_image_that_is_taken_is_judged(
    keeper: Gatekeeper,
    signers: tuple[Signer, Signer],
    registry: Registry,
    layout: Path,
    lookaside: Path,
    tmp_path: Path,
) -> None:
    entries = []
    for architecture in ("arm64", "s390x"):
        write_layout(tmp_path / architecture, [TarMaker().add(architecture).done()])
        if architecture == "arm64":
            signers[0].sign(tmp_path / architecture, registry, "several:v1", lookaside)
        else:
            registry.push(tmp_path / architecture, "several:v1")
        top = json.loads((tmp_path / architecture / "index.json").read_bytes())["manifests"][0]
        del top["annotations"]
        entries.append(top | {"platform": {"os": "linux", "architecture": architecture}})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    url = f"http://{registry.address}/v2/several/manifests/v1"
    request = ["curl", "-sf", "-X", "PUT", "-H", f"Content-Type: {INDEX}", "--data-binary", "@-", url]
    subprocess.run(request, input=index, check=True)  # noqa: ASYNC221
    keeper.policy(signed_by(signers[0]))
    await keeper.judge("several:v1", platform="linux/arm64/v8")
    with pytest.raises(SignatureValidationFailed, match="no signature exists"):
        await keeper.judge("several:v1", platform="linux/s390x")


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
async def test_local_sources_are_judged_too(
    keeper: Gatekeeper, layout: Path, tmp_path: Path, transport: str
) -> None:
    place = f"{transport}:{tmp_path}/local"
    command = ["skopeo", "copy", "-q", f"oci:{layout}:v1", place + (":r.example/a:v1" * ("-" in transport))]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221
    keeper.policy(REJECT, **{transport: {"": [ANYTHING]}})
    await keeper.judge(place)
    keeper.policy(ANYTHING, **{transport: {"": [REJECT]}})
    with pytest.raises(SignatureValidationFailed, match="rejected by policy"):
        await keeper.judge(place)


async def test_what_was_resolved_is_what_is_judged(
    keeper: Gatekeeper,
    signers: tuple[Signer, Signer],
    registry: Registry,
    layout: Path,
    lookaside: Path,
    tmp_path: Path,
) -> None:
    """A registry that serves an image first, and a signed one when its signature is asked for, is caught."""
    write_layout(tmp_path / "bad", [TarMaker().add("bad").done()])
    registry.push(tmp_path / "bad", "swapped:v1")
    keeper.policy(signed_by(signers[0]))
    scratch = tmp_path / "swap"
    scratch.mkdir()
    images = ImageConfig(policy=str(tmp_path / "policy.json"), registries_d=str(lookaside))
    async with opened(parse(f"{registry.address}/swapped:v1"), images, None, scratch) as remote:
        found = await remote.resolve()
        signers[0].sign(layout, registry, "swapped:v1", lookaside)
        with pytest.raises(SignatureValidationFailed, match=rf"{found.digest} is to be fetched, but"):
            await remote.check_policy(found)


async def test_a_missing_or_broken_policy_is_named(
    keeper: Gatekeeper, registry: Registry, layout: Path, tmp_path: Path
) -> None:
    registry.push(layout, "broken:v1")
    with pytest.raises(
        FailedPrecondition, match=r"images\.policy: there is no signature policy .*policy\.json"
    ):
        await keeper.judge("broken:v1")
    for text in ("{}", '{"default": [{"type": "unheard-of"}]}', "no json"):
        (tmp_path / "policy.json").write_text(text)
        with pytest.raises(PodwrightError, match=r"\(images\.policy: .*policy\.json\)") as caught:
            await keeper.judge("broken:v1")
        assert not isinstance(caught.value, SignatureValidationFailed)


@pytest.mark.parametrize(
    ("text", "anything"),
    [
        ('{"default": [{"type": "insecureAcceptAnything"}]}', True),
        ('{"default": [{"type": "reject"}]}', False),
        (
            '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"r.io": '
            '[{"type": "reject"}]}}}',
            False,
        ),
        (
            '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker-daemon": {"": '
            '[{"type": "insecureAcceptAnything"}]}}}',
            True,
        ),
        ("no json", False),
        ("[]", False),
        ('{"default": [{"type": "insecureAcceptAnything"}], "transports": []}', False),
        ('{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": 5}}', False),
    ],
)
def test_which_policies_let_everything_in(tmp_path: Path, text: str, anything: bool) -> None:
    (tmp_path / "policy.json").write_text(text)
    assert accepts_anything(tmp_path / "policy.json") is anything
