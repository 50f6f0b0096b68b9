"""What a Docker Engine and its host can do, as the pure rules of this engine need to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from podwright.engines.base import Json
from podwright.spec.inputs import Policy

RECURSIVE_READ_ONLY = (1, 44)
"""Since then the API tells recursive read-only mounts from others."""
CREATE_MOUNTPOINT = (1, 42)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    version: str = ""
    """Of the Docker Engine."""
    api: tuple[int, int] = (1, 41)
    cgroup_driver: str = "cgroupfs"
    cgroup_version: int = 1
    runtimes: tuple[str, ...] = ("runc",)
    default_runtime: str = "runc"
    """Docker's own."""
    chosen_runtime: str = ""
    """Of pods without a handler; "" leaves it to Docker."""
    apparmor: bool = False
    selinux: bool = False
    seccomp: bool = True
    policy_apparmor: str = ""
    """Profile of containers that ask for none; "": Docker's own."""
    cdi: bool = False
    live_restore: bool = False
    hostname: str = ""
    cgroup_parent: str = ""
    """Where pods go that name none; "" leaves it to Docker."""
    least_oom_score: int = -1000
    """Docker's containers can be given none below: who lacks CAP_SYS_RESOURCE can only raise its own."""
    policy: Policy = field(default_factory=Policy)
    sandbox_image: str = ""
    sandbox_user: str = ""
    """Of sandboxes that name none; "": the image's."""
    network: str = "none"
    """NetworkMode of sandboxes with a network of their own: "none" when CNI makes it."""

    @property
    def recursive_read_only(self) -> bool:
        return self.api >= RECURSIVE_READ_ONLY


def read(info: Mapping[str, Json], api: tuple[int, int]) -> dict[str, Json]:
    """The fields of `Features` that GET /info tells."""
    options = [str(each) for each in info.get("SecurityOptions") or ()]
    return {
        "version": str(info.get("ServerVersion") or ""),
        "api": api,
        "cgroup_driver": str(info.get("CgroupDriver") or "cgroupfs"),
        "cgroup_version": int(info.get("CgroupVersion") or 1),
        "runtimes": tuple(sorted(info.get("Runtimes") or {})),
        "default_runtime": str(info.get("DefaultRuntime") or "runc"),
        "apparmor": any(each.startswith("name=apparmor") for each in options),
        "selinux": any(each.startswith("name=selinux") for each in options),
        "seccomp": any(each.startswith("name=seccomp") for each in options),
        "cdi": bool(info.get("CDISpecDirs")),
        "live_restore": bool(info.get("LiveRestoreEnabled")),
    }
