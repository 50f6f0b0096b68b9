"""Labels of security modules: where the host has them, and what is refused where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected

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


@pytest.mark.skipif(not loaded(), reason="no AppArmor profile is loaded into this kernel")
def test_an_apparmor_profile(client: Client, native: str) -> None:
    name = loaded()[0]
    wanted = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=name)
    pod = client.pod(handler=native)
    container = pod.run(security={"apparmor": wanted})
    assert name in Path(f"/proc/{container.pid}/attr/current").read_text()
    free = pod.run(security={"apparmor": UNCONFINED})
    assert Path(f"/proc/{free.pid}/attr/current").read_text().strip() == "unconfined"


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
