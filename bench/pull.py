"""Pulls from a registry on loopback, cold each time: the rows `pull_200mb` and `pull_30k_files`.

A pull is timed from the call to its answer. Before it the image, its layers and its blobs are gone from the
side, and nothing is left to be written to the disk; the registry's files are in memory. The floor is
`skopeo copy` to a directory, then GNU tar for one layer after the other. All of it is on a disk of its own.

Memory is what a daemon's own process had at most above what it had before (the kernel's own count), and, in
a round that is not timed, what it had with all its children, looked at every few milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.daemons import Daemon, children, peak, reset_peak, rss
from bench.floor import run
from bench.report import Rows
from bench.stage import Stage
from podwright.wire import cri_pb2 as cri
from tools.oci_image import Layout

FULL, QUICK = 7, 3
"""Timed pulls of each image and side."""
LOOK = 0.005
NOTE = 4096
"""Bytes of a file that cannot be a layer."""
MIB = 1 << 20


@dataclass(frozen=True)
class Pulled:
    row: str
    reference: str
    layers: tuple[str, ...]
    """Digests of its compressed layers."""


class Puller:
    """A CRI daemon that pulls and forgets."""

    def __init__(self, daemon: Daemon) -> None:
        self.name = daemon.name
        self._daemon = daemon
        self._idle = rss(daemon.process.pid)

    def pull(self, image: Pulled) -> None:
        spec = cri.ImageSpec(image=image.reference)
        self._daemon.images.PullImage(cri.PullImageRequest(image=spec))

    def forget(self, image: Pulled) -> None:
        spec = cri.ImageSpec(image=image.reference)
        self._daemon.images.RemoveImage(cri.RemoveImageRequest(image=spec))
        deadline = time.monotonic() + 60
        while left := [
            str(path)
            for path in self._daemon.root.rglob("*")
            if _hex(path.name) in image.layers and not _is_note(path)
        ]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} keeps blobs of a removed image: {left}")
            time.sleep(0.05)

    def memory(self, image: Pulled) -> tuple[float, float]:
        """MiB above what it had before its first pull: the daemon alone (its peak), and with its children
        (as often as looked)."""
        pid, together, ended = self._daemon.process.pid, [0], threading.Event()
        others = set(children(pid))

        def look() -> None:
            while not ended.wait(LOOK):
                new = [child for child in children(pid) if child not in others]
                together.append(rss(pid) + sum(map(rss, new)))

        reset_peak(pid)
        looking = threading.Thread(target=look)
        looking.start()
        try:
            self.pull(image)
        finally:
            ended.set()
            looking.join()
        return (peak(pid) - self._idle) / MIB, (max(together) - self._idle) / MIB


class Side(Protocol):
    name: str

    def pull(self, image: Pulled) -> None: ...
    def forget(self, image: Pulled) -> None: ...


class Floor:
    name = "floor"

    def __init__(self, stage: Stage) -> None:
        self._root = stage.root / "floor-images"
        self._skopeo, self._tar = shutil.which("skopeo") or "skopeo", shutil.which("tar") or "tar"

    def pull(self, image: Pulled) -> None:
        target = self._root / "image"
        self._root.mkdir()
        run(
            [self._skopeo, "copy", "--quiet", "--src-tls-verify=false"]  # noqa: RUF005
            + [f"docker://{image.reference}", f"dir:{target}"]
        )
        for number, layer in enumerate(image.layers):
            into = self._root / str(number)
            into.mkdir()
            run([self._tar, "-xpzf", str(target / _hex(layer)), "-C", str(into), "--numeric-owner"])

    def forget(self, image: Pulled) -> None:
        shutil.rmtree(self._root)


def pulls(
    daemons: Sequence[Daemon],
    floor: Side | None,
    stage: Stage,
    rounds: int,
    rows: Rows,
    *,
    small_files: bool = True,
) -> None:
    """Time the pulls; the sides take turns."""
    sides: list[Side] = [Puller(daemon) for daemon in daemons]
    if floor is not None:
        sides.append(floor)
    with _registry(stage.root / "registry") as address:
        images = [_push(stage, address, "pull_200mb", [_large_files(number) for number in range(5)])]
        if small_files:
            images.append(
                _push(stage, address, "pull_30k_files", [_small_files(number) for number in range(3)])
            )
        for image in images:
            times: dict[str, list[float]] = defaultdict(list)
            for round in range(rounds + 1):
                for side in sides:
                    os.sync()
                    began = time.perf_counter()
                    side.pull(image)
                    if round > 0:
                        times[side.name].append(time.perf_counter() - began)
                    side.forget(image)
            for name, values in times.items():
                rows.add(image.row, "s", name, statistics.median(values))
                print(image.row, name, [f"{value:.2f}" for value in sorted(values)], flush=True)
            for side in sides:
                if isinstance(side, Puller):
                    alone, together = side.memory(image)
                    rows.add(f"{image.row}_memory", "MiB", side.name, alone)
                    rows.add(f"{image.row}_memory_all", "MiB", side.name, together)
                    side.forget(image)


# Images

Files = Iterator[tuple[str, bytes]]


def _large_files(layer: int) -> Files:
    """40 MB in ten files that gzip makes half as large: random bytes between text."""
    source = random.Random(layer)
    words = [source.randbytes(source.randint(2, 9)).hex().encode() for _ in range(4000)]
    for number in range(10):
        pieces, size = list[bytes](), 0
        while size < 4_000_000:
            piece = (
                source.randbytes(3000) if source.random() < 0.3 else b" ".join(source.choices(words, k=500))
            )
            pieces.append(piece)
            size += len(piece)
        yield f"usr/lib/layer{layer}/large{number}", b"".join(pieces)[:4_000_000]


def _small_files(layer: int) -> Files:
    """10,000 files of up to 4 KiB in 500 directories."""
    source = random.Random(layer)
    words = [source.randbytes(source.randint(2, 5)).hex().encode() for _ in range(1000)]
    for number in range(10_000):
        content = b" ".join(source.choices(words, k=source.randint(0, 500)))
        yield f"opt/layer{layer}/module{number // 20}/file{number}.txt", content[:4096]


def _push(stage: Stage, address: str, row: str, layers: Sequence[Files]) -> Pulled:
    """Make an image of one layer for each of `layers` and push it; skopeo compresses it by gzip."""
    layout = Layout(stage.root / row)
    made = []
    for number, files in enumerate(layers):
        root = stage.root / f"{row}-{number}"
        for name, content in files:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        made.append(layout.layer(root))
        shutil.rmtree(root)
    layout.add("v1", made, {"Cmd": ["/bin/sh"]})
    reference = f"{address}/{row}:v1"
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{layout.directory}:v1", f"docker://{reference}"], check=True)
    shutil.rmtree(layout.directory)
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"],
        check=True,
        capture_output=True,
    )
    manifest = json.loads(raw.stdout)
    return Pulled(row, reference, tuple(layer["digest"].partition(":")[2] for layer in manifest["layers"]))


@contextmanager
def _registry(root: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of 127.0.0.1; its address."""
    root.mkdir()
    config = root / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/blobs}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    log = root / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=said,
            stderr=said,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(rb"listening on (127\.0\.0\.1:\d+)", log.read_bytes())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"docker-registry did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield found[1].decode()
    finally:
        process.terminate()
        process.wait()


def _is_note(path: Path) -> bool:
    """Docker notes the digests that it once had, in small files."""
    try:
        return path.is_file() and path.stat().st_size < NOTE
    except FileNotFoundError:
        return True


def _hex(digest: str) -> str:
    return digest.rpartition(":")[2]
