"""Which images an administrator has pinned: images.pinned, as CRI-O's pinned_images reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from podwright.images import references


class Pinned:
    def __init__(self, patterns: Sequence[str]) -> None:
        """Each is a reference, a (beginning of an) image id, or a pattern in which * stands for anything and
        which is compared with full names. InvalidArgument for what can be none of them."""
        self._names: list[re.Pattern[str]] = []
        self._ids: list[str] = []
        for text in patterns:
            if "*" in text:
                # Not fnmatch: the brackets of an IPv6 address are no set of characters.
                self._names.append(re.compile(".*".join(re.escape(part) for part in text.split("*"))))
                continue
            digits = references.image_id_prefix(text)
            if digits:
                self._ids.append(f"sha256:{digits}")
            if not digits or (len(digits) < 64 and not text.startswith("sha256:")):
                name = str(references.parse(text, "images.pinned"))
                self._names.append(re.compile(re.escape(name)))

    def matches(self, image_id: str, names: Iterable[str]) -> bool:
        return any(image_id.startswith(prefix) for prefix in self._ids) or any(
            pattern.fullmatch(name) for pattern in self._names for name in (image_id, *names)
        )
