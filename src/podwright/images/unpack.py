"""The program that unpacks one layer, confined to the layer's directory. Standard library only.

It is started as a file of its own: `unpack.py PARENT FD DIGEST BYTES ENTRIES PLACE TARGET LOWER...`: the pid
of who wants it, the descriptor of the layer's file, the digest (diff id) that the layer must have without its
compression, the most bytes and entries that it may have (0: nine tenths of what is free on its disk), an
empty directory to stand in, the layer's new directory, and those of the layers below, topmost first. It
prints one line: "ok BYTES INODES", or what is wrong: "bad", "large", "full" or "missing", and the reason.

What holds, whatever is in a layer:

- No rule of ours leads out. Names are resolved one component at a time, by directories that are open, and the
  kernel never follows a link (`unpacking/tree.py`).
- If a rule were wrong: the process sees nothing but the layer's directory and, read-only, those below it, in
  a mount namespace of its own whose root has been exchanged. They are mounted without devices, setuid bits
  and programs, so what it makes it cannot use itself.
- If the interpreter, zlib or OpenSSL were wrong as well: it has no capability but those of making files and
  CAP_SYS_ADMIN (attributes trusted.*), and on x86_64 and aarch64 a seccomp filter for what the latter would
  allow: no mounts, namespaces, programs, processes, signals and sockets.
- zstd and igzip read the layer's bytes as nobody, without a way to new privileges, and can write to a pipe.
- It ends before the disk is full, and when its parent has gone.

What stays possible is to use one processor and, in the limits above, the disk. Setuid bits and devices are
kept in the layer: nobody but root reaches the store's root.
"""

# ruff: noqa: PTH100, PTH120

from __future__ import annotations

import os
import sys


def _start() -> None:
    """Import the program without what the packages above it import, which would take longer than it does."""
    images = os.path.dirname(os.path.abspath(__file__))
    for name, place in (("podwright", os.path.dirname(images)), ("podwright.images", images)):
        package = type(sys)(name)
        package.__path__ = [place]
        sys.modules[name] = package

    from podwright.images.unpacking.program import main

    main(sys.argv[1:])


if __name__ == "__main__":
    _start()
