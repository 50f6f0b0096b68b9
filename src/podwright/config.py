"""The configuration of one podwright: a TOML file, every value with a default that works.

`load()` reads the file (default /etc/podwright/config.toml; absent means defaults) and refuses keys it
does not know; its sections are declared in `config_sections.py`. Paths that follow from the two roots are
properties here, so that one place knows them. A user who is not root has both roots, and the socket, in
directories of its own.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Literal

import msgspec

from podwright import structs
from podwright.config_sections import (
    CniConfig,
    ContainerdConfig,
    DockerConfig,
    HandlerConfig,
    ImageConfig,
    LogsConfig,
    MetricsConfig,
    NodeConfig,
    SpecConfig,
    StreamingConfig,
    Timeout,
    TracingConfig,
    default_handlers,
)
from podwright.errors import FailedPrecondition, InvalidArgument

__all__ = [
    "DEFAULT_FILE",
    "CniConfig",
    "Config",
    "ContainerdConfig",
    "DockerConfig",
    "HandlerConfig",
    "ImageConfig",
    "LogsConfig",
    "MetricsConfig",
    "NodeConfig",
    "SpecConfig",
    "StreamingConfig",
    "TracingConfig",
    "load",
    "prepare",
]

DEFAULT_FILE = Path("/etc/podwright/config.toml")


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All of it: the keys before the first section, and the sections of `config_sections.py`."""

    root: str = "/var/lib/podwright"
    """Persistent state: the database, images, writable layers."""
    run: str = "/run/podwright"
    """Volatile state: namespaces, bundles, mounts, exit files. A reboot must empty it."""
    listen: str = "/run/podwright/podwright.sock"
    engine: Literal["oci", "containerd", "docker", "fake"] = "oci"
    """What runs the containers: "oci" is the embedded engine, "containerd" a containerd, "docker" a Docker
    Engine; "fake" keeps them in memory."""
    default_handler: str = "crun"
    handlers: dict[str, HandlerConfig] = msgspec.field(default_factory=default_handlers)
    cgroup_driver: Literal["cgroupfs", "systemd"] = "cgroupfs"
    cgroup_parent: str = "/podwright"
    """Where pods go that name no cgroup_parent."""
    conmon: str = "conmon"
    criu: str = "criu"
    """The program that dumps and restores processes, of this name: runtimes look for it in PATH. A path's
    directory goes first there."""
    seccomp_profile: str = "/usr/share/containers/seccomp.json"
    """RuntimeDefault, in containers-common's format."""
    seccomp_root: str = ""
    """Localhost profiles must lie under this directory; empty: anywhere."""
    restrict_oom_score_adj: bool = False
    hooks: list[str] = []
    """Python files with hooks of this site, besides those that are installed as entry points."""
    create_timeout: Timeout = 240.0
    """Seconds that a creation may take in all before it is rolled back."""
    cni: CniConfig = CniConfig()
    spec: SpecConfig = SpecConfig()
    images: ImageConfig = ImageConfig()
    streaming: StreamingConfig = StreamingConfig()
    metrics: MetricsConfig = MetricsConfig()
    logs: LogsConfig = LogsConfig()
    node: NodeConfig = NodeConfig()
    tracing: TracingConfig = TracingConfig()
    docker: DockerConfig = DockerConfig()
    containerd: ContainerdConfig = ContainerdConfig()

    @property
    def root_path(self) -> Path:
        return Path(self.root)

    @property
    def run_path(self) -> Path:
        return Path(self.run)

    @property
    def cni_cache(self) -> Path:
        return Path(self.cni.cache_dir) if self.cni.cache_dir else self.root_path / "cni"


def load(file: Path | None = None, *, of_host: bool = False, **overrides: object) -> Config:
    """The configuration of `file` with `overrides` on top; None overrides are left out. With `of_host` its
    places are the host's, whoever asks.

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
    if os.geteuid() != 0 and not of_host:
        tree = _of_user(tree)
    if isinstance(handlers := tree.get("handlers"), dict):
        tree = {**tree, "handlers": {name: _with_path(name, each) for name, each in handlers.items()}}
    try:
        config = structs.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise InvalidArgument(str(path), _in_words(error, tree)) from error
    # Naming a handler adds it to the built-in ones, or changes one of them.
    config = msgspec.structs.replace(config, handlers=default_handlers() | config.handlers)
    if config.default_handler not in config.handlers:
        raise InvalidArgument(
            "default_handler",
            f"no handler {config.default_handler!r} is configured: {sorted(config.handlers)}",
        )
    return config


def _with_path(name: str, handler: object) -> object:
    """One of the built-in handlers need not tell its program again."""
    known = default_handlers().get(name)
    if known is None or not isinstance(handler, dict):
        return handler
    return {"path": known.path} | handler


def prepare(config: Config) -> None:
    """Make the two roots of a user who is not root, closed to others. Root's are made by who uses them."""
    if os.geteuid() == 0:
        return
    for root in (config.root_path, config.run_path):
        for path in (*reversed(root.parents), root):
            # What is there already is the user's own affair.
            if not path.exists():
                path.mkdir(mode=0o700, exist_ok=True)


def _in_words(error: msgspec.ValidationError, tree: dict[str, object]) -> str:
    """What is wrong, after the name of the key: msgspec does not tell which of several handlers it is."""
    words, _, place = str(error).partition(" - at `$")
    place = place.removesuffix("`").removeprefix(".")
    words = _MISSING.sub(r"needs the key \1", _UNKNOWN.sub(r"there is no key \1", words))
    handlers = tree.get("handlers")
    if place.startswith("handlers[...]") and isinstance(handlers, dict):
        for name, each in handlers.items():
            try:
                structs.convert(each, HandlerConfig)
            except msgspec.ValidationError:
                place = place.replace("[...]", f".{name}", 1)
                break
    return f"{place}: {words}" if place else words


_MISSING = re.compile(r"Object missing required field (`[^`]*`)")
_UNKNOWN = re.compile(r"Object contains unknown field (`[^`]*`)")


def _of_user(tree: dict[str, object]) -> dict[str, object]:
    """`tree` with the places of a user who is not root, as the XDG base directory specification has them."""
    if "run" not in tree:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        tree = {"run": f"{runtime if runtime.startswith('/') else _own_temporary()}/podwright"} | tree
    if "root" not in tree:
        state = os.environ.get("XDG_STATE_HOME", "")
        home = Path(state) if state.startswith("/") else Path.home() / ".local/state"
        tree = {"root": str(home / "podwright")} | tree
    return {"listen": f"{tree['run']}/podwright.sock"} | tree


def _own_temporary() -> Path:
    """A directory that everybody could have made: it is used only when it is this user's alone."""
    path = Path(f"/tmp/podwright-{os.geteuid()}")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return path
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise FailedPrecondition(
            f"{path} is not this user's own directory, closed to others: set XDG_RUNTIME_DIR, or choose --run"
        )
    return path
