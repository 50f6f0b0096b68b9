"""What `unpack.py` does, from its arguments to its answer. Standard library only."""

from __future__ import annotations

import os

from podwright.images.unpacking import confinement
from podwright.images.unpacking.archive import Archive
from podwright.images.unpacking.below import Below
from podwright.images.unpacking.blocks import Blocks
from podwright.images.unpacking.faults import BadLayer, NoProgram, TooLarge, shown
from podwright.images.unpacking.layer import Layer
from podwright.images.unpacking.limits import Limits, limits_of
from podwright.images.unpacking.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = (28, 122)
"""ENOSPC, EDQUOT."""


def main(arguments: Sequence[str]) -> None:
    """Answer on standard output and end the process, its other thread included."""
    answer = _answer(arguments)
    os.write(1, answer.encode("utf-8", "backslashreplace"))
    os._exit(not answer.startswith("ok"))


def _answer(arguments: Sequence[str]) -> str:
    parent, file, diff_id, most_bytes, most_entries, place, target, *lowers = arguments
    try:
        os.umask(0)
        limits = limits_of(target, int(most_bytes), int(most_entries))
        blocks = Blocks(int(file), int(parent), limits)
        root, below = confinement.enter(place, target, lowers)
        confinement.lock()
        blocks.start()
        size, inodes = _unpack(blocks, Tree(root, Below(below)), limits)
        found = blocks.finish()
        if found != diff_id:
            return f"bad the layer's digest is {found}, its image says {diff_id}"
    except BadLayer as error:
        return f"bad {error}"
    except TooLarge as error:
        return f"large {error}"
    except NoProgram as error:
        return f"missing {error}"
    except OSError as error:
        return f"{'full' if error.errno in FULL else 'bad'} {error}"
    return f"ok {size} {inodes}"


def _unpack(blocks: Blocks, tree: Tree, limits: Limits) -> tuple[int, int]:
    archive = Archive(blocks.next, limits)
    layer = Layer(tree, archive, limits)
    while (entry := archive.next()) is not None:
        try:
            layer.apply(entry)
        except BadLayer as error:
            raise BadLayer(f"entry {shown(entry.name)}: {error}") from error
        except OSError as error:
            raise OSError(error.errno, f"entry {shown(entry.name)}: {error.strerror}") from error
        except (ValueError, OverflowError) as error:
            raise BadLayer(f"entry {shown(entry.name)}: {error}") from error
    return layer.finish()
