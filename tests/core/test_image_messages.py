"""What ImageStatus and ListImages say of an image's user: the kubelet's runAsNonRoot check goes by it."""

from __future__ import annotations

import pytest

from podwright.core.images import image_message
from podwright.engines.base import Image


@pytest.mark.parametrize(
    ("user", "uid", "username"),
    [
        ("", 0, ""),
        ("0", 0, ""),
        ("1000", 1000, ""),
        ("1000:1000", 1000, ""),
        ("1000:users", 1000, ""),
        ("007", 7, ""),
        (":50", 0, ""),
        ("nobody", None, "nobody"),
        ("nobody:nogroup", None, "nobody"),
        ("-1", None, "-1"),
        ("+5", None, "+5"),
        ("12a", None, "12a"),
        ("\u0663", None, "\u0663"),
        ("9" * 30, None, "9" * 30),
    ],
)
def test_a_number_is_a_uid_and_anything_else_a_name(user: str, uid: int | None, username: str) -> None:
    message = image_message(Image("sha256:" + "1" * 64, (), (), 1, {"User": user}))
    assert message.username == username
    assert (message.uid.value if message.HasField("uid") else None) == uid
