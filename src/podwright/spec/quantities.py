"""Sizes and rates as Kubernetes writes them: "128Mi", "50M", "1k", "1.5G"."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from podwright.errors import InvalidArgument

_SUFFIXES = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "K": Decimal(10**3)}
_SUFFIXES |= {sign: Decimal(1000**power) for power, sign in enumerate("MGTPE", start=2)}
_SUFFIXES |= {f"{sign}i": Decimal(1024**power) for power, sign in enumerate("KMGTPE", start=1)}
_QUANTITY = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d{1,2}|[mkKMGTPE]i?|)", re.ASCII)


def parse(text: str | int, field: str) -> int:
    """The whole number that `text` stands for, rounded up (apimachinery, resource.Quantity).

    Raises InvalidArgument (on `field`) for anything else, and for what does not fit in 64 bits.
    """
    found = _QUANTITY.fullmatch(str(text).strip())
    if found is None or (found[2] not in _SUFFIXES and found[2][0] not in "eE"):
        raise InvalidArgument(field, f"{text!r} is no quantity: give a number such as 128Mi, 50M or 1k")
    number, suffix = Decimal(found[1]), found[2]
    exact = number * (_SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1{suffix}"))
    value = int(exact.to_integral_value(ROUND_CEILING))
    if value >= 2**63:
        raise InvalidArgument(field, f"{text!r} is too large: it must fit in 64 bits")
    return value
