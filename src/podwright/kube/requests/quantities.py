"""Amounts of resources as the API writes them: "0.5" is "500m", "1024Ki" is "1Mi". Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from podwright.kube.requests import resources
from podwright.kube.requests.resources import parse_quantity

if TYPE_CHECKING:
    from fractions import Fraction

    from podwright.kube.models import AnyContainer, PodSpec

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


def of_containers(spec: PodSpec, side: str, name: str) -> str:
    """What the containers of a pod ask for together, written as the first of them writes it."""
    return _written(resources.containers_amount(spec, side, name), spec, side, name)


def of_pod(spec: PodSpec, side: str) -> dict[str, str]:
    """Everything that a pod asks for: its own word, or else that of its containers; and its overhead, as far
    as what is limited is limited."""
    owners: list[PodSpec | AnyContainer] = [spec, *(spec.initContainers or []), *spec.containers]
    overhead: Mapping[str, object] = spec.overhead or {}
    names = dict.fromkeys(name for one in owners for name in getattr(one.resources, side, None) or {})
    if side == "requests":
        names |= dict.fromkeys(overhead)
    found = {}
    for name in names:
        amount = resources.pod_amount(spec, side, name)
        if side == "requests" or amount:
            amount += parse_quantity(overhead.get(name, 0))
        found[name] = _written(amount, spec, side, name)
    return found


def _written(amount: Fraction, spec: PodSpec, side: str, name: str) -> str:
    owners: list[PodSpec | AnyContainer] = [spec, *spec.containers, *(spec.initContainers or [])]
    said = [(getattr(one.resources, side, None) or {}).get(name, "") for one in owners]
    said.append((spec.overhead or {}).get(name, ""))
    like = next((str(one) for one in said if one and parse_quantity(one)), "")
    if amount.denominator != 1:
        return f"{resources.milli_cpu(amount)}m"
    if like.endswith("i") and amount % 1024 == 0:
        return canonical(f"{amount / 1024}Ki")
    return canonical(amount)
