"""Which images an administrator has pinned: images.pinned, as CRI-O's pinned_images reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from podwright.images import references


class Pinned:
    def __init__(self, patterns: Sequence[str]) -> None:
        """Each is a reference, a (beginning of an) image id, or a pattern in which * stands for anything and
        which is compared with full names. InvalidArgument for what can be none of them."""
        self._patterns = {text: _compiled(text) for text in patterns}

    def matches(self, image_id: str, names: Iterable[str]) -> bool:
        return bool(self.matching(image_id, names))

    def matching(self, image_id: str, names: Iterable[str]) -> Sequence[str]:
        """The patterns that pin this image, as they are configured."""
        texts = [image_id, *names]
        return [
            written
            for written, pattern in self._patterns.items()
            if any(pattern.fullmatch(text) for text in texts)
        ]


def _compiled(text: str) -> re.Pattern[str]:
    if "*" in text:
        # Not fnmatch: the brackets of an IPv6 address are no set of characters.
        return re.compile(".*".join(re.escape(part) for part in text.split("*")))
    digits, ways = references.image_id_prefix(text), []
    if digits:
        ways.append(f"sha256:{digits}[0-9a-f]*")
    if not digits or (len(digits) < 64 and not text.startswith("sha256:")):
        ways.append(re.escape(str(references.parse(text, "images.pinned"))))
    return re.compile("|".join(ways))
