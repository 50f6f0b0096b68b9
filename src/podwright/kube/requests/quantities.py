"""Amounts of resources as the API writes them: "0.5" is "500m", "1024Ki" is "1Mi". Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from podwright.kube.requests.resources import parse_quantity

_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def canonical(quantity: object) -> str:
    """The largest suffix that leaves a whole number; a power of two stays one, an exponent an exponent."""
    text = str(quantity)
    value = parse_quantity(quantity)
    if text.endswith("i") and abs(value) >= 1024 and value.denominator == 1:
        power = 0
        while power < len(_BINARY) - 1 and value % 1024 == 0:
            value, power = value / 1024, power + 1
        return f"{value}{_BINARY[power]}"
    exponent = 0 if value == 0 else -9
    # Less than a billionth cannot be said, and is rounded up.
    number = math.ceil(value * 10**9) if value else 0
    while number and exponent < 18 and number % 1000 == 0:
        number, exponent = number // 1000, exponent + 3
    by_exponent = text[-1:].isdigit() and "e" in text.lower()
    if by_exponent:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL[exponent]}"


def all_canonical(amounts: Mapping[str, object] | None) -> dict[str, str]:
    return {name: canonical(value) for name, value in (amounts or {}).items()}
