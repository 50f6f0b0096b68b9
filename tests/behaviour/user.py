"""An unprivileged user, and a Python that it can read.

Tests that are run as root start programs as another user here; tests that are run as an ordinary user start
them as that one. A checkout, a virtual environment or an interpreter may lie where only root gets (a home
directory of mode 0700): then the user gets copies.

    python -m tests.behaviour.user ARGUMENT...     runs `python ARGUMENT...` as the user in a copy of this
                                                   checkout, and exits with its status
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("podwright", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
"""What the user's Python needs, with all that these and the checkout's pyproject.toml require."""

COPYS_OWN = ("PYTHONHOME", "LD_LIBRARY_PATH")
"""What a copy of Python finds its own library by."""

_TRIAL = "import podwright.cli.main, grpc, msgspec, pytest, sqlite3, ssl, typer, yaml"
_UNNEEDED = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "idlelib", "config-*", "turtledemo"
)
_NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "build", "*.egg-info")


@dataclass
class User:
    uid: int
    home: Path
    """Its own directory, readable for everyone; it is removed in the end."""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_other(self) -> bool:
        """Whether it is somebody else than who runs the tests."""
        return self.uid != os.geteuid()

    def directory(self, path: Path) -> Path:
        """Make the directory `path`, if it is not there, and give it to the user."""
        path.mkdir(exist_ok=True)
        if self.is_other:
            os.chown(path, self.uid, self.uid)
        return path

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start the user's Python with `arguments`; `options` are Popen's."""
        return subprocess.Popen([*self._as_user(), self.python, *arguments], **self._popen(options))

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the user's Python with `arguments` to its end."""
        options = {"capture_output": True, "text": True, "timeout": 60, "check": False, **options}
        return subprocess.run([*self._as_user(), self.python, *arguments], **self._popen(options))

    def _as_user(self) -> list[str]:
        """What a command begins with to be run as the user.

        Not Popen's `user`: that forks where it otherwise uses vfork, and in a fork gRPC's handlers start
        threads, which a client with connections, such as these tests, does not survive until it executes.
        setpriv itself executes with root's capabilities, and finds programs that the user cannot get at;
        `env` executes as the user.
        """
        if not self.is_other:
            return []
        setpriv, env = shutil.which("setpriv"), shutil.which("env")
        assert setpriv is not None, "setpriv, of util-linux, is needed to run something as another user"
        assert env is not None, "env, of coreutils, is needed to run something as another user"
        return [setpriv, f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--", env]

    def _popen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"cwd": self.home, "env": self.environment, **options}


@contextmanager
def open_user() -> Iterator[User]:
    """The user whom unprivileged programs run as, with a directory of its own for the time being."""
    # Not below pytest's directory, which is closed to other users.
    home = Path(tempfile.mkdtemp(prefix="podwright-"))
    try:
        home.chmod(0o755)
        user = User(NOBODY if os.geteuid() == 0 else os.geteuid(), home)
        user.directory(home)
        user.environment = {
            "HOME": str(home),
            "TMPDIR": str(user.directory(home / "tmp")),
            "XDG_RUNTIME_DIR": str(user.directory(home / "run")),
            "PATH": str(user.directory(home / "bin")),  # it has no program
            "LANG": "C.UTF-8",
        }
        _give_python(user)
        yield user
    finally:
        shutil.rmtree(home)


def _give_python(user: User) -> None:
    if not user.is_other:
        user.environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        # Of a copy (see below): without these it would run with another one's libraries.
        user.environment |= {name: os.environ[name] for name in COPYS_OWN if name in os.environ}
        return
    user.environment["PYTHONPATH"] = str(CHECKOUT / "src")
    if not _works(user):
        _copy_interpreter(user)
        _copy_packages(user)
        trial = user.run("-c", _TRIAL)
        assert trial.returncode == 0, f"the copy of Python does not work for uid {user.uid}: {trial.stderr}"


def _works(user: User) -> bool:
    try:
        return user.run("-c", _TRIAL).returncode == 0
    except PermissionError:
        return False


def _copy_interpreter(user: User) -> None:
    target = user.home / "python"
    base = Path(sys.base_prefix).resolve()
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    shutil.copytree(stdlib, target / stdlib.relative_to(base), ignore=_UNNEEDED)
    program = target / "bin" / f"python{sysconfig.get_python_version()}"
    program.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), program)
    library = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library.exists():
        shutil.copy2(library, target / "lib")
        user.environment["LD_LIBRARY_PATH"] = str(target / "lib")
    user.environment["PYTHONHOME"] = str(target)
    user.python = str(program)


def _copy_packages(user: User) -> None:
    target = user.home / "packages"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for name in sorted(_required([*PACKAGES, *map(_name, project["dependencies"])])):
        for file in metadata.distribution(name).files or ():
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.exists():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / file)
    package = Path(metadata.distribution("podwright").locate_file("podwright"))  # type: ignore[arg-type]
    if not package.exists():  # an editable installation
        shutil.copytree(CHECKOUT / "src/podwright", target / "podwright")
    user.environment["PYTHONPATH"] = str(target)


def _required(names: Sequence[str]) -> set[str]:
    """`names` and whatever these need, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or version
        found.add(name)
        waiting += [_name(line) for line in requires if "extra ==" not in line]
    return found


def _name(requirement: str) -> str:
    """The package that a requirement, "name>=1,<2; marker", is about."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing is left then, either
    with open_user() as user:
        checkout = user.home / "checkout"
        shutil.copytree(CHECKOUT, checkout, ignore=_NOT_SOURCE, symlinks=True)
        if user.is_other:
            for path in (checkout, *checkout.rglob("*")):
                os.chown(path, user.uid, user.uid, follow_symlinks=False)
        own = [str(checkout / "src"), user.environment["PYTHONPATH"]]
        user.environment["PYTHONPATH"] = os.pathsep.join(own)
        process = user.start(sys.argv[1:], cwd=checkout)
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
