"""What a spec is built from: plain values that somebody else has looked up.

Nothing here or anywhere in `spec/` reads a file or asks the kernel. The engine gathers these values (what to
look up, the rules say: `linux.mounts.lookups`, `linux.devices.lookups`, `linux.security.localhost_path`,
`linux.mounts.volumes_needed`, `linux.selinux.needs_level`) and the CRI messages come in as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from podwright.spec import blockio, cdi, rdt
from podwright.spec.base_spec import BaseSpec
from podwright.spec.draft import Json
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.oci_hooks import Hook
from podwright.spec.rlimits import Rlimit
from podwright.spec.selinux import SELinux
from podwright.wire import cri_pb2 as cri


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the administrator of this node decided; the defaults are containerd's."""

    restrict_oom_score_adj: bool = False
    """Never ask for an OOM score below the daemon's own, even if the kernel would allow it."""
    disable_proc_mount: bool = False
    """Ignore the request's masked and read-only paths, use the OCI defaults."""
    unset_seccomp_profile: str = ""
    """Profile for requests that name none, in the string form ("runtime/default", "localhost/PATH")."""
    seccomp_root: str = ""
    """Localhost profiles lie under this directory, and relative paths are meant below it; "": anywhere."""
    device_ownership_from_security_context: bool = False
    """Device nodes belong to run_as_user and run_as_group instead of the host node's owner."""
    unprivileged_ports: bool = True
    unprivileged_icmp: bool = True
    hugepages: bool = False
    """Pass hugepage limits on (where the hugetlb controller exists)."""
    tolerate_missing_hugetlb: bool = True
    ignore_blockio_not_enabled: bool = False
    """Run containers that ask for a block I/O class without one."""
    ignore_rdt_not_enabled: bool = False
    image_volumes: bool = True
    """Mount a directory for every VOLUME of the image."""
    absent_mount_sources_to_reject: Sequence[str] = ()
    """Host paths that must be there already when they are mounted."""
    pids_limit: int = 0
    """Processes per container; -1 is unlimited, 0 leaves it to the OCI runtime."""
    default_ulimits: Sequence[Rlimit] = ()
    """Resource limits of every container; without them it inherits the daemon's."""
    umask: int | None = None
    """Of every container; None leaves it to the OCI runtime (0022)."""
    shm_size: int = 64 << 20
    """Bytes of a pod's /dev/shm."""
    read_only_rootfs: bool = False
    """Every rootfs is read-only, with a tmpfs of its own at /run, /tmp and /var/tmp."""
    gomaxprocs: bool = False
    """Tell Go programs how many processors their CPU quota is worth (GOMAXPROCS)."""
    systemd: bool = False
    """Prepare containers whose program is systemd for it: writable cgroup, tmpfs where it needs one."""
    pause_cpuset: str = ""
    """Processors of the pause processes ("0-1"); "": all."""
    additional_devices: Sequence[str] = ()
    """Devices of every container: "HOST_PATH[:CONTAINER_PATH[:PERMISSIONS]]"."""
    allowed_devices: Sequence[str] = ("/dev/fuse", "/dev/net/tun")
    """Devices that pods may have by annotation, where the handler allows that annotation."""
    unlabel_host_namespaces: bool = False
    """No SELinux label for processes of pods with the host's PID or IPC namespace."""
    shared_relabel: bool = False
    """Relabel volumes so that every container on the host can use them (level s0), not this pod alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The host as the engine found it; one value serves every build until the host changes."""

    hostname: str
    architecture: str = "amd64"
    """In Go's spelling, as images and seccomp profiles write it: amd64, arm64, …"""
    kernel: tuple[int, int] = (0, 0)
    """Major and minor version, for seccomp rules with a minimal kernel; (0, 0): such rules do not apply."""
    cgroup_version: int = 2
    swap_controller: bool = False
    hugetlb_controller: bool = False
    capabilities: Sequence[str] = ()
    """The daemon's bounding set ("CAP_CHOWN", …): nothing beyond it can be given to a container."""
    own_oom_score_adj: int = 0
    seccomp: bool = True
    default_seccomp: SeccompProfile | None = None
    """RuntimeDefault; None: no such profile is installed."""
    apparmor: bool = False
    apparmor_profiles: frozenset[str] = frozenset()
    """Names of the profiles loaded into the kernel."""
    apparmor_default: str = ""
    """Profile of containers that ask for none; "": there is none, they run unconfined."""
    selinux: SELinux | None = None
    """None: not enabled, labels are left out whatever a request says."""
    cgroup_mount_options: frozenset[str] = frozenset()
    """Of the host's own mount at /sys/fs/cgroup (v2)."""
    cdi: cdi.Registry | None = field(default_factory=cdi.Registry)
    """None: CDI is switched off."""
    blockio: blockio.Classes | None = None
    """None: not configured."""
    rdt: rdt.Classes | None = None
    """None: not configured, or the host has no resctrl."""
    hooks: Sequence[Hook] = ()
    """Of the hooks directories, in order."""
    localtime: str = ""
    """File that every container sees as /etc/localtime; "": the image's own."""
    policy: Policy = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """What one runtime handler can do, and what its configuration says."""

    name: str = ""
    """For messages and origins."""
    base_spec: BaseSpec | None = None
    """What its containers start from."""
    recursive_read_only: bool = False
    idmapped_mounts: bool = False
    privileged_without_host_devices: bool = False
    privileged_without_host_devices_all_devices_allowed: bool = False
    cgroup_writable: bool = False
    """/sys/fs/cgroup read-write in unprivileged containers (cgroup v2 only)."""
    pod_annotations: Sequence[str] = ()
    """Patterns of sandbox annotations that are passed to the OCI runtime; `*` does not cross a `/`."""
    container_annotations: Sequence[str] = ()
    allowed_annotations: Sequence[str] = ()
    """Keys (or prefixes that end in `*`) of the annotations that may change a spec: umask, ulimits, devices,
    size of /dev/shm, writable cgroups, seccomp profiles; see `spec.allowed`."""
    minimum_memory: int = 0
    """Bytes: the runtime cannot start a container with less."""
    virtual_machine: bool = False
    """Containers run in a virtual machine, which SELinux confines as such."""
    type_annotations: bool = True
    """Tell the runtime which container belongs to which sandbox. False for a runtime that would then look
    for a sandbox container of its own (runsc), which does not exist here."""
    own_kernel: bool = False
    """Containers run on a kernel of the runtime's (gVisor): the pod's UTS namespace means nothing to it, and
    it has no capability that came after CAP_AUDIT_READ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The `config` object of an OCI image configuration, the parts that matter for running it."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    args_escaped: bool = False
    """Windows only: the first word of Entrypoint or Cmd is a whole command line, quoted already."""

    @classmethod
    def parse(cls, config: Mapping[str, Json] | None) -> Self:
        """Absent, null and empty members are the same (image-spec, config.md)."""
        config = config or {}
        return cls(
            entrypoint=tuple(config.get("Entrypoint") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            env=tuple(config.get("Env") or ()),
            user=config.get("User") or "",
            working_dir=config.get("WorkingDir") or "",
            stop_signal=config.get("StopSignal") or "",
            volumes=tuple(sorted(config.get("Volumes") or ())),
            args_escaped=bool(config.get("ArgsEscaped")),
        )


@dataclass(frozen=True, slots=True)
class RootfsFiles:
    """Text of the image's own user databases; None: the image has no such file."""

    passwd: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespacePaths:
    """Namespaces of the sandbox that a container joins: paths of namespace files.

    "" means the sandbox has none of its own: the host's is used for net, ipc, uts; see `linux.namespaces`
    for pid. `target_pid` is the PID namespace of the container named by NamespaceMode TARGET.
    """

    net: str = ""
    ipc: str = ""
    uts: str = ""
    pid: str = ""
    user: str = ""
    target_pid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFiles:
    """Host paths of the sandbox's files that every container sees; "" leaves that one out."""

    hostname: str = ""
    hosts: str = ""
    resolv_conf: str = ""
    shm: str = ""
    """The pod's /dev/shm; with host IPC the host's own is used, whatever stands here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSource:
    """What the host has at the source of one mount of the request."""

    path: str
    """The source with links resolved; for an image mount the directory that shows the image (sub path
    included)."""
    mountpoint: str = ""
    """The mount that `path` lies on; only looked up for propagated mounts. "": propagation is not checked."""
    shared: bool = False
    """That mount is in a peer group (mountinfo "shared:")."""
    slave: bool = False
    """That mount receives from one (mountinfo "master:")."""
    directory: bool = True
    """Mounts can lie below `path`; False for a file of any kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device node of the host."""

    path: str
    """Below the path that was asked for, links in the asked path itself not resolved."""
    type: str
    """"c" or "b"."""
    major: int
    minor: int
    mode: int = 0o666
    """Permission bits."""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInput:
    id: str
    config: cri.ContainerConfig
    sandbox_id: str
    sandbox: cri.PodSandboxConfig
    image: ImageConfig
    cgroups_path: str
    """OCI linux.cgroupsPath, in the form of the cgroup driver; "": the runtime chooses."""
    rootfs_path: str = "rootfs"
    """Absolute, or relative to the bundle."""
    rootfs: RootfsFiles = RootfsFiles()
    namespaces: NamespacePaths = NamespacePaths()
    system: SystemFiles = SystemFiles()
    handler: HandlerOptions = HandlerOptions()
    mount_sources: Sequence[MountSource] = ()
    """One for each of config.mounts, in the same order; () takes host paths as they are, unchecked."""
    devices: Mapping[str, Sequence[DeviceNode]] = field(default_factory=dict)
    """For each host path of `devices.lookups`: its node, or those below it if it is a directory (empty: it
    is no device). A path that does not exist is absent."""
    host_devices: Sequence[DeviceNode] = ()
    """All nodes below /dev, when `devices.lookups` asks for them."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """For each path of `mounts.volumes_needed`: the host directory prepared for it."""
    seccomp_profile: bytes | None = None
    """Content of the file that `security.localhost_path` names."""
    pod_selinux_level: str = ""
    """Drawn for the pod when it was made (`selinux.allocate`), if its request names none."""
    selinux_level: str = ""
    """Drawn for this container, if it has options of its own without a level."""

    @property
    def security(self) -> cri.LinuxContainerSecurityContext:
        return self.config.linux.security_context

    @property
    def sandbox_security(self) -> cri.LinuxSandboxSecurityContext:
        return self.sandbox.linux.security_context

    @property
    def privileged(self) -> bool:
        return self.config.linux.security_context.privileged


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxInput:
    """For the pause process of a pod that shares its PID namespace."""

    id: str
    config: cri.PodSandboxConfig
    cgroups_path: str
    rootfs_path: str
    """Directory with the pause program; every user must be able to enter it (mode 0755)."""
    args: Sequence[str] = ("/catatonit", "-P")
    namespaces: NamespacePaths = NamespacePaths()
    """net, ipc, uts (and user) are joined; "" leaves the host's."""
    handler: HandlerOptions = HandlerOptions()
    seccomp_profile: bytes | None = None
    selinux_level: str = ""
    """Drawn for the pod, if its request names none."""

    @property
    def security(self) -> cri.LinuxSandboxSecurityContext:
        return self.config.linux.security_context
