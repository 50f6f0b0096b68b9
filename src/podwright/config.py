"""The configuration of one podwright: a TOML file, every value with a default that works.

`load()` reads the file (default /etc/podwright/config.toml; absent means defaults) and refuses keys it
does not know. Paths that follow from the two roots are properties here, so that one place knows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from podwright.errors import InvalidArgument

DEFAULT_FILE = Path("/etc/podwright/config.toml")


class HandlerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One OCI runtime that pods can ask for by `runtime_handler`."""

    path: str
    """The runtime's program; a bare name is looked up in PATH."""
    options: list[str] = []
    """Global options put before every command of the runtime."""
    privileged_without_host_devices: bool = False


def _default_handlers() -> dict[str, HandlerConfig]:
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


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    root: str = "/var/lib/podwright"
    """Persistent state: the database, images, writable layers."""
    run: str = "/run/podwright"
    """Volatile state: namespaces, bundles, mounts, exit files. A reboot must empty it."""
    listen: str = "/run/podwright/podwright.sock"
    engine: Literal["oci", "fake"] = "oci"
    """What runs the containers: "oci" is the embedded engine; "fake" keeps them in memory."""
    default_handler: str = "crun"
    handlers: dict[str, HandlerConfig] = msgspec.field(default_factory=_default_handlers)
    cgroup_driver: Literal["cgroupfs", "systemd"] = "cgroupfs"
    cgroup_parent: str = "/podwright"
    """Where pods go that name no cgroup_parent."""
    conmon: str = "conmon"
    seccomp_profile: str = "/usr/share/containers/seccomp.json"
    """RuntimeDefault, in containers-common's format."""
    seccomp_root: str = ""
    """Localhost profiles must lie under this directory; empty: anywhere."""
    restrict_oom_score_adj: bool = False
    create_timeout: float = 240.0
    """Seconds that a creation may take in all before it is rolled back."""
    cni: CniConfig = CniConfig()
    images: ImageConfig = ImageConfig()

    @property
    def root_path(self) -> Path:
        return Path(self.root)

    @property
    def run_path(self) -> Path:
        return Path(self.run)

    @property
    def cni_cache(self) -> Path:
        return Path(self.cni.cache_dir) if self.cni.cache_dir else self.root_path / "cni"


def load(file: Path | None = None, **overrides: object) -> Config:
    """The configuration of `file` with `overrides` on top; None overrides are left out.

    Raises InvalidArgument that names the key when the file has an unknown or ill-typed one.
    """
    path = file or DEFAULT_FILE
    tree: dict[str, object] = {}
    if file is not None or path.exists():
        try:
            tree = msgspec.toml.decode(path.read_bytes(), type=dict[str, object])
        except OSError as error:
            raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise InvalidArgument(str(path), f"is not TOML: {error}") from error
    tree.update({key: value for key, value in overrides.items() if value is not None})
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise InvalidArgument(str(path), str(error)) from error
    # Naming a handler adds it to the built-in ones, or changes one of them.
    config = msgspec.structs.replace(config, handlers=_default_handlers() | config.handlers)
    if config.default_handler not in config.handlers:
        raise InvalidArgument(
            "default_handler",
            f"no handler {config.default_handler!r} is configured: {sorted(config.handlers)}",
        )
    return config
