"""Block I/O classes: goresctrl's configuration file, and what each class is in the OCI spec.

Classes:
  NAME:
  - Weight: 80                  # without Devices: for all that are not named
  - Devices: [/dev/sd[a-z]]     # shell patterns
    ThrottleReadBps: 50M        # also ThrottleWriteBps, ThrottleReadIOPS, ThrottleWriteIOPS, Weight
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.spec import quantities
from podwright.spec.draft import Json

Classes = Mapping[str, Mapping[str, Json]]
"""`linux.resources.blockIO` of each class."""

Numbers = Sequence[tuple[int, int]]
"""Major and minor numbers of block devices."""

_THROTTLES = (
    ("throttle_read_bps", "throttleReadBpsDevice"),
    ("throttle_write_bps", "throttleWriteBpsDevice"),
    ("throttle_read_iops", "throttleReadIOPSDevice"),
    ("throttle_write_iops", "throttleWriteIOPSDevice"),
)


class _Parameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    devices: list[str] = msgspec.field(default_factory=list, name="Devices")
    weight: str | int | None = msgspec.field(default=None, name="Weight")
    throttle_read_bps: str | int | None = msgspec.field(default=None, name="ThrottleReadBps")
    throttle_write_bps: str | int | None = msgspec.field(default=None, name="ThrottleWriteBps")
    throttle_read_iops: str | int | None = msgspec.field(default=None, name="ThrottleReadIOPS")
    throttle_write_iops: str | int | None = msgspec.field(default=None, name="ThrottleWriteIOPS")


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    classes: dict[str, list[_Parameters]] = msgspec.field(name="Classes")


class Rule(NamedTuple):
    patterns: tuple[str, ...]
    """Paths of devices; none: all devices."""
    weight: int | None
    throttles: tuple[tuple[str, int], ...]
    """Member of the OCI's blockIO, and the rate (bytes or operations a second)."""


class Configuration(NamedTuple):
    classes: Mapping[str, tuple[Rule, ...]]

    def patterns(self) -> list[str]:
        """What has to be looked up on the host: each pattern once."""
        rules = (rule for each in self.classes.values() for rule in each)
        return list(dict.fromkeys(pattern for rule in rules for pattern in rule.patterns))

    def resolve(self, found: Mapping[str, Numbers]) -> Classes:
        """The classes for a host where each pattern stands for these devices.

        Raises InvalidArgument for a rule none of whose devices is there: its limits would limit nothing.
        """
        return {name: _to_oci(name, rules, found) for name, rules in self.classes.items()}


def parse(text: bytes, path: str) -> Configuration:
    """Raises InvalidArgument that names the file and what is wrong."""
    import yaml  # few nodes have such files, and each server would keep it in memory

    try:
        file = structs.convert(yaml.safe_load(text), _File)
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(path, f"is no block I/O configuration: {error}") from error
    return Configuration(
        {
            name: tuple(_rule(each, f"{path}: {name}") for each in rules)
            for name, rules in file.classes.items()
        }
    )


def _rule(given: _Parameters, field: str) -> Rule:
    weight = None if given.weight is None else quantities.parse(given.weight, f"{field}.Weight")
    if weight is not None and not 10 <= weight <= 1000:
        raise InvalidArgument(f"{field}.Weight", f"{weight} is not in 10..1000")
    throttles = tuple(
        (member, quantities.parse(value, f"{field}.{member}"))
        for name, member in _THROTTLES
        if (value := getattr(given, name)) is not None
    )
    if throttles and not given.devices:
        raise InvalidArgument(field, "a throttle needs Devices")
    return Rule(tuple(given.devices), weight, throttles)


def _to_oci(name: str, rules: Sequence[Rule], found: Mapping[str, Numbers]) -> dict[str, Json]:
    result: dict[str, Json] = {}
    # A later rule for the same device counts.
    limits: dict[str, dict[tuple[int, int], int]] = {}
    for rule in rules:
        devices = list(dict.fromkeys(each for pattern in rule.patterns for each in found.get(pattern, ())))
        if rule.patterns and not devices:
            raise InvalidArgument(
                f"block I/O class {name}", f"no block device matches {', '.join(rule.patterns)}"
            )
        if rule.weight is not None and not rule.patterns:
            result["weight"] = rule.weight
        for device in devices:
            if rule.weight is not None:
                limits.setdefault("weightDevice", {})[device] = rule.weight
            for member, rate in rule.throttles:
                limits.setdefault(member, {})[device] = rate
    for member, values in limits.items():
        value = "weight" if member == "weightDevice" else "rate"
        result[member] = [
            {"major": major, "minor": minor, value: limit} for (major, minor), limit in values.items()
        ]
    return result
