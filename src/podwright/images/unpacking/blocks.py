"""A layer's bytes without their compression, read ahead and hashed by a thread of their own.

Inflating and hashing release the interpreter lock, so they go on beside the system calls that make files.
What is compressed by zstd goes through the program zstd, and gzip through igzip where that is installed (it
takes a third of the time). These programs get the layer on standard input, write to a pipe, and run as nobody
without any way to more. What they write is believed no more than anything else: the digest decides.

Standard library only: part of the program that unpacks layers.
"""

# Paths are plain strings here, and little is imported: starting up is part of every layer.
# ruff: noqa: PTH118

from __future__ import annotations

import _thread
import errno
import fcntl
import hashlib
import os
import zlib
from _queue import SimpleQueue

from podwright.images.unpacking.faults import BadLayer, NoProgram, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podwright.images.unpacking.limits import Limits

BLOCK = 1 << 18
AHEAD = 8
"""Blocks read ahead."""
INPUT = 1 << 16
"""Compressed bytes taken at a time: zlib copies what is left of them with every block that it makes."""
WORTH_A_PROGRAM = 1 << 20
"""Bytes of a gzip file from which on starting a program pays."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
OTHERS = {
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"PK\x03\x04": "zip",
}
NOBODY = 65534
PIPE_SIZE = 1 << 20


class Blocks:
    """The blocks of a layer. `next` is for one thread; `finish` reads what is left and checks the digest."""

    def __init__(self, fd: int, parent: int, limits: Limits) -> None:
        """`fd` is the layer's file, `parent` the process that wants it."""
        self._parent = parent
        self._limits = limits
        self._hash = hashlib.sha256()
        self._ready: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._read = _reader(fd)
        self._ended = False

    def start(self) -> None:
        _thread.start_new_thread(self._read_ahead, ())

    def next(self) -> bytes:
        """The next block; none at the end. Raises what went wrong while it was read."""
        if self._ended:
            return b""
        block = self._ready.get()
        if not block:
            self._ended = True
        elif isinstance(block, Exception):
            self._ended = True
            raise block
        else:
            self._room.put(None)
        return block  # type: ignore[return-value]  # it is no exception here

    def finish(self) -> str:
        """Read the rest, which the digest covers as well; the digest of everything (the diff id)."""
        while self.next():
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _read_ahead(self) -> None:
        total = 0
        try:
            while True:
                self._room.get()
                if os.getppid() != self._parent:
                    raise BadLayer("the one who asked for it has gone")  # its successor clears the directory
                block = self._read()
                self._hash.update(block)
                total += len(block)
                if total > self._limits.bytes:
                    raise TooLarge(self._limits.bytes_words)
                self._ready.put(block)
                if not block:
                    return
        except Exception as error:  # it is raised where the block is asked for
            self._ready.put(error)


def _reader(fd: int) -> Callable[[], bytes]:
    """What returns block after block of the file `fd`, and none at its end."""
    first = os.pread(fd, 8, 0)
    if first.startswith(ZSTD) or _is_skippable(first):
        program = _find("zstd")
        if program is None:
            raise NoProgram("the layer is compressed by zstd, which is not installed")
        return _Program([program, "-d", "-c", "-q"], fd, "zstd").read
    if first.startswith(GZIP):
        program = _find("igzip") if os.fstat(fd).st_size >= WORTH_A_PROGRAM else None
        return _Program([program, "-d", "-c"], fd, "gzip").read if program else _Gzip(fd).read
    for magic, kind in OTHERS.items():
        if first.startswith(magic):
            raise BadLayer(f"the layer is compressed by {kind}: only gzip and zstd are known for layers")
    return lambda: os.read(fd, BLOCK)


def _is_skippable(first: bytes) -> bool:
    """Whether a zstd file begins with data about itself (RFC 8878, 3.1.2)."""
    return first[1:4] == b"\x2a\x4d\x18" and 0x50 <= first[0] <= 0x5F


class _Gzip:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._member = zlib.decompressobj(31)

    def read(self) -> bytes:
        while True:
            if self._member.eof:
                # gzip(1): members follow each other; anything else behind the last one is padding
                pending = self._member.unused_data
                while len(pending) < 2 and (more := os.read(self._fd, INPUT)):
                    pending += more
                if not pending.startswith(GZIP):
                    return b""
                self._member = zlib.decompressobj(31)
            else:
                pending = self._member.unconsumed_tail or os.read(self._fd, INPUT)
                if not pending:
                    block = self._member.flush()
                    if not self._member.eof:
                        raise BadLayer("the layer's gzip stream is cut short")
                    return block
            try:
                block = self._member.decompress(pending, BLOCK)
            except zlib.error as error:
                raise BadLayer(f"the layer's gzip stream is damaged: {error}") from None
            if block:
                return block


class _Program:
    """A decompressor as a child of this process."""

    def __init__(self, argv: list[str], fd: int, form: str) -> None:
        self._form = form
        self._output, output = os.pipe()
        self._errors, errors = os.pipe()
        try:
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # nobody's pipes are larger than fs.pipe-user-pages-soft allows: slower, no more
        self._pid = os.fork()
        if not self._pid:
            _become(argv, fd, output, errors)
        os.close(output)
        os.close(errors)

    def read(self) -> bytes:
        block = os.read(self._output, BLOCK)
        if not block:
            words = os.read(self._errors, 4096).decode("utf-8", "replace").strip()
            status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            if status:
                raise BadLayer(f"the layer's {self._form} stream is damaged: {words or f'status {status}'}")
        return block


def _become(argv: list[str], *streams: int) -> None:
    """Turn this forked process into the program `argv`, as nobody, with `streams` and no other file."""
    try:
        import ctypes
        import resource

        for number, stream in enumerate(streams):
            os.dup2(stream, number + 100)
        for number in range(len(streams)):
            os.dup2(number + 100, number)
        os.closerange(len(streams), 1 << 16)
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        no_new_privileges = 38  # PR_SET_NO_NEW_PRIVS, prctl(2)
        if ctypes.CDLL(None).prctl(no_new_privileges, 1, 0, 0, 0) != 0:
            os._exit(125)
        os.execv(argv[0], argv)
    except BaseException as error:  # nothing may return from here
        os.write(2, f"{argv[0]}: {error}".encode())
    finally:
        os._exit(126)


def _find(program: str) -> str | None:
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        file = os.path.join(directory, program)
        try:
            if os.access(file, os.X_OK):
                return file
        except OSError as error:
            if error.errno != errno.EACCES:
                raise
    return None
