"""Labels of security modules: where the host has them, and what is refused where it has not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected
from tests.behaviour.stage import own_name

pytestmark = pytest.mark.root

PROFILES = Path("/sys/kernel/security/apparmor/profiles")
SELINUX = Path("/sys/fs/selinux/enforce")
RUNTIME_DEFAULT = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
UNCONFINED = cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)


def loaded() -> list[str]:
    try:
        return [line.rpartition(" (")[0] for line in PROFILES.read_text().splitlines()]
    except OSError:
        return []


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[str]:
    """A profile that is loaded for this test, while the server runs: below it /tmp cannot be written to."""
    if shutil.which("apparmor_parser") is None:
        pytest.skip("no apparmor_parser to load a profile with")
    name = own_name()
    text = f"profile {name} {{ file, capability, network, signal, deny /tmp/** w, }}"
    load = ["apparmor_parser", "--skip-cache", "--quiet"]
    subprocess.run([*load, "--add"], input=text, text=True, check=True)
    yield name
    subprocess.run([*load, "--remove"], input=text, text=True, check=True)


@pytest.mark.skipif(not loaded(), reason="no AppArmor profile is loaded into this kernel")
def test_an_apparmor_profile(client: Client, native: str, confined: str) -> None:
    wanted = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=confined)
    pod = client.pod(handler=native)
    container = pod.run(security={"apparmor": wanted})
    assert Path(f"/proc/{container.pid}/attr/current").read_text().strip() == f"{confined} (enforce)"
    assert container.sh("cat /proc/self/attr/current") == f"{confined} (enforce)"
    refused = container.exec("touch", "/tmp/file")
    assert refused.code != 0 and "Permission denied" in refused.err
    with rejected(StatusCode.FAILED_PRECONDITION, "no-such"):
        unknown = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref="no-such")
        pod.create("/bin/true", security={"apparmor": unknown})
    container.runtime.StopContainer(cri.StopContainerRequest(container_id=container.id, timeout=20))
    assert container.status().state == cri.CONTAINER_EXITED


@pytest.mark.skipif(not loaded(), reason="no AppArmor profile is loaded into this kernel")
def test_no_apparmor_profile(client: Client, native: str) -> None:
    free = client.pod(handler=native).run(security={"apparmor": UNCONFINED})
    # A runtime that the distribution gave a name ("crun (unconfined)") hands it on.
    label = Path(f"/proc/{free.pid}/attr/current").read_text().strip()
    assert label == "unconfined" or label.endswith(" (unconfined)")
    assert free.exec("touch", "/tmp/file").code == 0


@pytest.mark.skipif(bool(loaded()), reason="this kernel has AppArmor")
def test_apparmor_profiles_are_refused_where_there_is_none(client: Client, native: str) -> None:
    """Confinement that was asked for is never left out in silence."""
    pod = client.pod(handler=native)
    local = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref="any")
    for profile in (RUNTIME_DEFAULT, local):
        with rejected(StatusCode.FAILED_PRECONDITION, "apparmor"):
            pod.create("/bin/true", security={"apparmor": profile})
    assert pod.run(security={"apparmor": UNCONFINED}).exec("true").code == 0


@pytest.mark.skipif(SELINUX.exists(), reason="this kernel has SELinux")
def test_selinux_options_mean_nothing_where_there_is_none(client: Client, native: str) -> None:
    options = cri.SELinuxOption(user="u", role="r", type="t", level="s0:c1,c2")
    container = client.pod(handler=native).run(security={"selinux_options": options})
    spec = container.info()["runtimeSpec"]
    assert "selinuxLabel" not in spec["process"] and "mountLabel" not in spec["linux"]
