"""Where the program that unpacks layers stands: a way out that its rules forget would lead nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.images import unpack
from tests.images.unpacked import Stack

pytestmark = pytest.mark.root

PROBE = """
import ctypes, errno, json, os, socket, sys
images = sys.argv[1]
for name, place in (("podwright", os.path.dirname(images)), ("podwright.images", images)):
    package = type(sys)(name)
    package.__path__ = [place]
    sys.modules[name] = package
from podwright.images.unpacking import confinement

libc = ctypes.CDLL(None, use_errno=True)
layer, below = confinement.enter(sys.argv[2], sys.argv[3], sys.argv[4:])
confinement.lock()
inside = dict(dir_fd=layer)
CREATE = os.O_CREAT | os.O_WRONLY

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def up(fd, times):
    for _ in range(times):
        fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    return os.listdir(fd)

found = {}
for name, attempt in {
    "absolute": lambda: os.listdir("/"),
    "above the layer": lambda: up(layer, 9),
    "above a lower one": lambda: sorted(up(below[0], 9)),
    "the host's files": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "processes": lambda: os.listdir("/proc"),
    "write below": lambda: os.open("new", CREATE, dir_fd=below[0]),
    "change below": lambda: os.chmod("below", 0o600, dir_fd=below[0]),
    "write above": lambda: os.open("../new", CREATE, dir_fd=below[0]),
    "make a device": lambda: os.mknod("zero", 0o20666, os.makedev(1, 5), dir_fd=layer),
    "use a device": lambda: os.open("zero", os.O_RDONLY, dir_fd=layer),
    "mark a directory": lambda: os.setxattr(layer, "trusted.overlay.opaque", b"y"),
    "mount": lambda: call("mount", b"none", b"/", b"tmpfs", 0, b""),
    "chroot": lambda: os.chroot("/"),
    "namespace": lambda: call("unshare", 0x20000),
    "another root": lambda: call("pivot_root", b".", b"."),
    "fork": os.fork,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "trace": lambda: call("ptrace", 16, os.getppid(), 0, 0),
    "network": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "time": lambda: __import__("time").clock_settime(0, 0),
    "handle": lambda: call("open_by_handle_at", -1, None, 0),
}.items():
    try:
        answer = attempt()
        found[name] = answer if isinstance(answer, list) else "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
os.write(1, json.dumps(found).encode())
os._exit(0)
"""


def test_it_reaches_nothing(tmp_path: Path) -> None:
    for name in ("place", "layer", "lower"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/below").touch()
    images = str(Path(unpack.__file__).parent)
    places = [str(tmp_path / name) for name in ("place", "layer", "lower")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROBE, images, *places],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    # What it must be able to.
    assert [found.pop(name) for name in ("make a device", "mark a directory")] == ["done", "done"]
    # All there is: the layer as its root, and beside it those below.
    assert found.pop("absolute") == found.pop("above the layer") == []
    assert found.pop("above a lower one") == ["0", "layer"]
    assert [found.pop(name) for name in ("the host's files", "processes")] == ["ENOENT", "ENOENT"]
    assert {found.pop(name) for name in ("write below", "change below", "write above")} == {"EROFS"}
    assert found.pop("use a device") == "EACCES"
    # Everything else it may not even ask for.
    assert set(found.values()) == {"EPERM"}, found
    assert len(found) == 11
    # And nothing of its world is left in ours.
    assert list((tmp_path / "place").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert (tmp_path / "lower/below").stat().st_mode & 0o777 != 0o600
    assert os.listxattr(tmp_path / "layer") == ["trusted.overlay.opaque"]


@pytest.fixture
def endless() -> Iterator[str]:
    """Where zstd is a program that writes zeros until nobody reads them."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    (place / "zstd").write_text("#!/bin/sh\nexec /bin/cat /dev/zero\n")
    (place / "zstd").chmod(0o755)
    yield str(place)
    shutil.rmtree(place)


def test_it_stands_there_while_it_works(tmp_path: Path, endless: str) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    stack = Stack(tmp_path / "stack", path=endless, layers=[lower])
    with stack.start(b"\x28\xb5\x2f\xfd", "sha256:0") as program:
        try:
            own, deadline = Path(f"/proc/{program.pid}"), time.monotonic() + 60
            while (status := _fields(own / "status"))["Seccomp"] != "2":
                assert program.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            threads = [_fields(task / "status") for task in (own / "task").iterdir()]
            mounted = [line.split()[4] for line in (own / "mountinfo").read_text().splitlines()]
            root = (own / "root").readlink()
        finally:
            program.kill()
    # CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD, SETFCAP
    kept = sum(1 << number for number in (0, 1, 3, 4, 21, 27, 31))
    for thread in (status, *threads):
        assert int(thread["CapEff"], 16) == int(thread["CapPrm"], 16) == kept
        assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2")
    assert mounted == ["/"]  # of those that it can reach
    assert str(root).endswith("layer")


def _fields(file: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in file.read_text().splitlines() if ":\t" in line)
