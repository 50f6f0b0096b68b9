"""The sections of the configuration file: each key, its default that works, and what it means.

`config.py` reads the file and has the keys before the first section; import all of them from there.
"""

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Limit = Annotated[int, msgspec.Meta(ge=-1)]
"""-1: none."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Timeout = Annotated[float, msgspec.Meta(gt=0)]


class HandlerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One OCI runtime that pods can ask for by `runtime_handler`."""

    path: str = ""
    """The runtime's program; a bare name is looked up in PATH. A handler with a `runtime_type`, for the
    containerd engine, may do without."""
    options: list[str] = []
    """Global options put before every command of the runtime."""
    privileged_without_host_devices: bool = False
    """Privileged containers get the devices they ask for, not all that the host has."""
    privileged_without_host_devices_all_devices_allowed: bool = False
    """… but their cgroup lets them use any device they can get at."""
    cgroup_writable: bool = False
    """/sys/fs/cgroup is writable in containers (cgroup v2 only)."""
    base_runtime_spec: str = ""
    """JSON file with the OCI spec that this handler's containers start from."""
    pod_annotations: list[str] = []
    """Patterns of pods' annotations that are passed to the OCI runtime; `*` does not cross a `/`."""
    container_annotations: list[str] = []
    """The same for containers' annotations."""
    allowed_annotations: list[str] = []
    """Annotations that may change a container's spec, such as umask.crio.io; see spec/allowed.py."""
    minimum_memory: Count = 0
    """Bytes: requests with a lower memory limit are refused. crun needs about 512 KiB, runc 12 MiB."""
    virtual_machine: bool = False
    """SELinux confines these containers as virtual machines."""
    runtime_type: str = ""
    """The shim of the containerd engine, such as "io.containerd.kata.v2". Empty: containerd's for runc, with
    `path` as the runtime that it calls; for a `path` of runsc, gVisor's."""
    runtime_config: str = ""
    """A file or, for shims of containerd's runc, nothing: what such a shim takes as its configuration."""
    snapshotter: str = ""
    """Of the containerd engine, for this handler's pods; empty: containerd.snapshotter."""
    sandboxer: Literal["", "podsandbox", "shim"] = ""
    """Who holds this handler's pods together in the containerd engine: a pause container, or the shim by
    containerd's sandbox service. Empty: "podsandbox", for a shim cannot be asked whether it can."""

    def __post_init__(self) -> None:
        if not self.path and not self.runtime_type:
            raise ValueError("needs the key `path`, or `runtime_type`")


class SpecConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What the OCI specs of all handlers' containers depend on. The defaults are containerd's."""

    cdi_spec_dirs: list[str] = msgspec.field(default_factory=lambda: ["/etc/cdi", "/var/run/cdi"])
    """Directories of CDI files, a later one wins; []: no CDI."""
    hooks_dirs: list[str] = []
    """Directories of OCI hooks (oci-hooks(5)), a later one wins. Read when the server starts."""
    blockio_config_file: str = ""
    """Block I/O classes, in goresctrl's format."""
    rdt_config_file: str = ""
    """RDT classes, in goresctrl's format."""
    ignore_blockio_not_enabled_errors: bool = False
    ignore_rdt_not_enabled_errors: bool = False
    default_ulimits: list[str] = []
    """ "NAME=SOFT[:HARD]" each, such as "nofile=1024:4096"; -1 is unlimited."""
    shm_size: str = "64Mi"
    """Of a pod's /dev/shm."""
    umask: str = ""
    """Octal, such as "027"; empty: the OCI runtime's."""
    timezone: str = ""
    """Of all containers: a name such as "Europe/Berlin"; "local": the host's; empty: the image's own."""
    selinux: bool = False
    """Label containers, where the host has SELinux."""
    selinux_category_range: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 1024
    """How many categories pods are told apart by."""
    selinux_unlabel_host_namespaces: bool = False
    """No label for processes of pods that share the host's PID or IPC namespace."""
    selinux_shared_relabel: bool = False
    """Relabel volumes for all containers of the host, not for one pod alone."""
    apparmor_profile: str = ""
    """Loaded AppArmor profile of containers that ask for none; empty: they run without."""
    unset_seccomp_profile: str = ""
    """For containers that ask for none: "runtime/default", "localhost/PATH"; empty: they run without."""
    disable_proc_mount: bool = False
    """Mask the usual paths of /proc and /sys, whatever a request says."""
    enable_unprivileged_ports: bool = True
    """Pods may bind ports below 1024."""
    enable_unprivileged_icmp: bool = True
    """Pods may send pings."""
    hugepages: bool = False
    """Pass hugepage limits on."""
    tolerate_missing_hugetlb_controller: bool = True
    ignore_image_defined_volumes: bool = False
    absent_mount_sources_to_reject: list[str] = []
    """Host paths that no directory is made at when a container wants to mount them, such as "/etc/hostname":
    whoever puts a file there later would be in its way."""
    pids_limit: Limit = 0
    """Processes of a container; -1 is unlimited, 0 leaves it to the OCI runtime."""
    device_ownership_from_security_context: bool = False
    """Devices belong to run_as_user and run_as_group inside."""
    additional_devices: list[str] = []
    """Devices of every container: "HOST_PATH[:CONTAINER_PATH[:PERMISSIONS]]"."""
    allowed_devices: list[str] = msgspec.field(default_factory=lambda: ["/dev/fuse", "/dev/net/tun"])
    """Devices that pods may have by annotation, where the handler allows that."""
    read_only_rootfs: bool = False
    """Every rootfs is read-only, with a tmpfs at /run, /tmp and /var/tmp."""
    gomaxprocs: bool = False
    """Set GOMAXPROCS to what the CPU quota is worth."""
    systemd: bool = False
    """Prepare containers whose program is systemd for it."""
    pause_cpuset: str = ""
    """Processors of pause processes, such as "0-1"; empty: all."""


def default_handlers() -> dict[str, HandlerConfig]:
    return {
        "crun": HandlerConfig(path="crun"),
        "runc": HandlerConfig(path="runc"),
        "runsc": HandlerConfig(path="runsc", options=["--platform=ptrace"]),
    }


class CniConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    conf_dir: str = "/etc/cni/net.d"
    bin_dirs: list[str] = msgspec.field(
        default_factory=lambda: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
    )
    cache_dir: str = ""
    """Where results are kept for DEL; empty: ROOT/cni."""
    conf_template: str = ""
    """Template of a network configuration, as containerd's conf_template: conf_dir/10-podwright.conflist is
    made from it once the kubelet has told the pods' addresses ({{.PodCIDR}}, {{.PodCIDRRanges}},
    {{.Routes}}), unless conf_dir has another valid one that comes first. Empty: nothing is made."""
    default_bridge: bool = False
    """Use the built-in bridge configuration while conf_dir has none (`podwright run` turns it on)."""
    sole_user: bool = False
    """No other runtime attaches to these networks: at start their plugins are asked (CNI GC, since 1.1) to
    release whatever no sandbox of ours holds."""
    ip_preference: Literal["ipv4", "ipv6", "cni"] = "ipv4"


class ImageConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    insecure_registries: list[str] = []
    """Registries (host[:port]) spoken to over plain HTTP or with unverified TLS."""
    pinned: list[str] = []
    """References that RemoveImage by garbage collection must spare: reported as pinned."""
    authfile: str = ""
    """Credentials file used when the client sends none."""
    policy: str = "/etc/containers/policy.json"
    """Which signatures images need (containers-policy.json(5))."""
    platform: str = ""
    """"os/arch" or "os/arch/variant" that is taken of images made for several; empty: this host's."""
    registries_conf: str = ""
    """Mirrors, blocked and insecure registries (containers-registries.conf(5)); with the files *.conf of the
    directory of this name and ".d" added. Empty: the host's, /etc/containers/registries.conf."""
    registries_d: str = ""
    """Directory that says where signatures are (containers-registries.d(5)). Empty: the host's."""
    certs_dir: str = ""
    """Directory with a directory host[:port] for each registry that needs certificates of its own
    (containers-certs.d(5)), looked at before the host's. Empty: the host's only."""
    max_concurrent_downloads: Positive = 3
    """Layers that are fetched at the same time, by all pulls together; pulls take turns."""
    progress_timeout: Seconds = 300.0
    """Seconds without a new byte after which a pull is given up; 0: never. A slow one is not."""
    discard_unpacked_layers: bool = False
    """Keep no compressed layer beside the unpacked one: less disk, but no export, and no layer that another
    image's pull could use before it is unpacked."""
    max_layer_bytes: Count = 0
    """The most that one layer may unpack to: bytes without compression, and bytes on disk. 0: nine tenths of
    what is free on the disk then. Layers of large models have tens of gigabytes, so no fixed number suits
    all; what would fill the disk is refused before it does."""
    max_layer_entries: Count = 0
    """The most entries that one layer may have. 0: nine tenths of the inodes that are free on the disk."""
    pending_blobs_for: Seconds = 86400.0
    """Seconds that the complete blobs of an interrupted pull are kept for the next try."""


class StreamingConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The server that Exec, Attach and PortForward give URLs of. Whoever has such a URL within a minute has
    what it is for, so without TLS it is not for other hosts' ears."""

    address: str = "127.0.0.1"
    """Where it listens: an address of this host. Beyond loopback it wants TLS."""
    port: int = 0
    """0: any that is free."""
    base_url: str = ""
    """What URLs begin with, such as "https://node1.example:10350/cri", where clients get there by another way
    than by address and port; empty: those."""
    tls_cert: str = ""
    """PEM file with the certificate, and those between it and its authority; with tls_key URLs are https."""
    tls_key: str = ""
    tls_client_ca: str = ""
    """PEM file with the authorities of which clients must have a certificate; empty: they need none."""
    idle_timeout: float = 4 * 3600.0
    """Seconds without a byte in either direction after which a session is ended."""
    creation_timeout: float = 30.0
    """Seconds within which a client must open the streams it has asked for."""


class TracingConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where spans of calls and their steps are sent, as OTLP over gRPC; needs `podwright[tracing]`. What is
    not set here the standard OTEL_* variables of the environment say, as to containerd."""

    enabled: bool = False
    """Send spans. OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT in the environment asks
    for it, too."""
    endpoint: str = ""
    """The collector: "host:port" or "http://host:port", "https://host:port" with TLS. Empty: as in the
    environment, else 127.0.0.1:4317."""
    tls_ca: str = ""
    """PEM file with the authorities that sign the collector's certificate; empty: those gRPC trusts."""
    tls_cert: str = ""
    """PEM file with the certificate that the collector wants of us, and tls_key its key."""
    tls_key: str = ""
    sampling_rate_per_million: int | None = None
    """Of a million traces that begin here, how many are sent. One that began elsewhere is sent when its
    caller says so. Unset: as OTEL_TRACES_SAMPLER says, else all."""


class MetricsConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Figures about podwright itself, for Prometheus."""

    address: str = ""
    """Where `podwright serve` answers GET /metrics: "127.0.0.1:9477", or "unix:///PATH", which only root and
    the socket's group may open. There is no TLS, and whoever reaches it may ask. Empty: nowhere."""


class NodeConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a kubelet's configuration would say of this machine, for pods that are run from manifests. The
    defaults are a machine without a cluster."""

    name: str = ""
    """Empty: the host's name, in small letters."""
    ips: list[str] = []
    """Addresses that pods are told of; []: those that the host speaks from."""
    cluster_dns: list[str] = []
    """Name servers of dnsPolicy ClusterFirst; []: the node's resolver stands in."""
    cluster_domain: str = ""
    """What the full names of pods and the search list end in, such as "cluster.local"."""
    resolv_conf: str = "/etc/resolv.conf"
    """The node's resolver; empty: none."""
    allowed_unsafe_sysctls: list[str] = []
    """Sysctls beyond the safe ones that pods may set; a * at the end matches the rest: "kernel.msg*"."""
    seccomp_default: bool = False
    """RuntimeDefault for containers that say nothing of seccomp."""
    seccomp_root: str = ""
    """Where names of Localhost profiles begin; empty: ROOT/seccomp."""
    cgroup_root: str = "/podwright"
    """The cgroup below which kubepods is made."""
    pod_cgroups: bool | None = None
    """Make cgroups for pods and their quality of service; unset: as root."""
    pod_logs: str = ""
    """Directory of the pods' logs; empty: ROOT/logs."""
    legacy_logs: str = ""
    """Directory of symlinks to the logs, as log shippers know /var/log/containers; empty: none are made."""
    max_backoff: Seconds = 300.0
    """Seconds, the longest wait before a failing container is started again."""
    container_log_max_size: Count = 10 << 20
    """Bytes after which a log is rotated; 0: never."""
    container_log_max_files: Annotated[int, msgspec.Meta(ge=2)] = 5
    """That a container keeps, the current one included."""
    manifests: str = ""
    """Directory of manifests whose pods `podwright serve` keeps running; empty: none."""


class LogsConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Limits of containers' logs, held by a writer that podwright starts where there are any (docs/logs.md).
    Off by default: a kubelet rotates logs itself, and nothing limits their rate."""

    max_size: str = ""
    """Of one file, such as "10Mi". At it the log is rotated or, without max_files, ends with a line that says
    so, until somebody rotates it. Empty: unlimited."""
    max_files: int = 0
    """Files that a container keeps, the current one included: 2 or more. 0: podwright does not rotate."""
    compress: bool = False
    """gzip rotated files, but for the latest."""
    rate_bytes: str = ""
    """Of the log a second, such as "1Mi"; what comes faster is dropped, and a line says how much. Empty:
    unlimited."""
    rate_lines: int = 0
    """The same in lines; 0: unlimited."""
    burst: float = 1.0
    """Seconds of these rates that may come at once."""
    allow_annotations: bool = False
    """Pods may have other limits by the annotation log-limits.podwright.io."""


class DockerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The Docker Engine of `engine = "docker"`."""

    endpoint: str = ""
    """Where it listens: "unix:///PATH" or "tcp://HOST:PORT". Empty: as DOCKER_HOST says, with
    DOCKER_TLS_VERIFY or DOCKER_CERT_PATH by TLS; else unix:///var/run/docker.sock."""
    tls_ca: str = ""
    """PEM file with the authorities that sign the Docker Engine's certificate. With any of these three files,
    and with "https://HOST:PORT", the connection is by TLS, and that certificate is verified."""
    tls_cert: str = ""
    """PEM file with the certificate that it wants of us, and tls_key its key."""
    tls_key: str = ""
    request_timeout: Timeout = 120.0
    """Seconds for one request; pulls and stops take the time they need."""
    sandbox_image: str = ""
    """Image of the container that holds a pod together, pulled when it is absent. Empty: one that is made of
    the host's catatonit."""
    network: str = "cni"
    """Where pods' networks come from: "cni", or "docker:NAME", a network of the Docker Engine's own."""
    default_runtime: str = ""
    """The Docker runtime of pods without a runtime handler; empty: the Docker Engine's own default."""


class ContainerdConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The containerd of `engine = "containerd"`."""

    endpoint: str = "/run/containerd/containerd.sock"
    """Its socket, as a path or as unix:///PATH."""
    namespace: str = "k8s.io"
    """Of what this engine makes there. Containers of others in it are left alone, images are shared."""
    snapshotter: str = "overlayfs"
    sandbox_image: str = ""
    """Image of the container that holds a pod together, pulled when it is absent. Empty: one that is made of
    the host's catatonit."""
    transfer: bool = True
    """Pull by containerd's Transfer service where the daemon has one and nothing is configured that only our
    own transport knows (signature policies, mirrors, credential helpers)."""
    request_timeout: Timeout = 120.0
    """Seconds for one request; pulls and stops take the time they need."""
