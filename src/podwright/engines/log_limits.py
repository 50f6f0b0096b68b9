"""What the configuration and a container's annotations want of its log: the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podwright.config import LogsConfig
from podwright.engines.base import Container
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.logs.limits import MIN_SIZE, Limits
from podwright.spec import quantities

ANNOTATION = "log-limits.podwright.io"
"""`max_size=10Mi,rate_lines=100`: what the configuration has, for one container or pod. A pod's may name a
container behind a slash."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Those of this node's containers."""

    limits: Limits
    annotations: bool
    """Pods may choose others."""

    @classmethod
    def of(cls, config: LogsConfig) -> LogLimits:
        """FailedPrecondition for a value that means nothing; it names the setting."""
        try:
            limits = Limits(
                max_size=_size(config.max_size, "logs.max_size"),
                max_files=config.max_files,
                compress=config.compress,
                rate_bytes=_size(config.rate_bytes, "logs.rate_bytes"),
                rate_lines=config.rate_lines,
                burst=config.burst,
            )
            _check(limits, "logs.", "")
        except InvalidArgument as error:
            raise FailedPrecondition(f"configuration {error}") from error
        return cls(limits, config.allow_annotations)

    def of_container(self, container: Container) -> Limits | None:
        """None: its log has none. InvalidArgument for an annotation that means nothing."""
        limits = self.limits
        if self.annotations:
            pod, name = container.sandbox.config.annotations, container.config.metadata.name
            limits = _annotated(limits, pod, ANNOTATION, "sandbox_config.annotations")
            limits = _annotated(limits, pod, f"{ANNOTATION}/{name}", "sandbox_config.annotations")
            limits = _annotated(limits, container.config.annotations, ANNOTATION, "config.annotations")
        return limits if limits.max_size or limits.rate_bytes or limits.rate_lines else None


def _annotated(limits: Limits, annotations: Mapping[str, str], key: str, field: str) -> Limits:
    """`limits` changed by the annotation `key`, if there is one."""
    if key not in annotations:
        return limits
    field = f"{field}[{key}]"
    for part in annotations[key].split(","):
        name, _, text = (each.strip() for each in part.partition("="))
        if name not in Limits._fields:
            raise InvalidArgument(field, f"{name!r} is none of {', '.join(Limits._fields)}")
        limits = limits._replace(**_value(name, text, field))
    _check(limits, "", field)
    return limits


def _value(name: str, text: str, field: str) -> dict[str, Any]:
    match name:
        case "compress" if text in ("true", "false"):
            return {name: text == "true"}
        case "burst":
            try:
                return {name: float(text)}
            except ValueError:
                pass
        case "max_size" | "rate_bytes" | "rate_lines" | "max_files":
            return {name: quantities.parse(text, f"{field} {name}")}
    raise InvalidArgument(field, f"{text!r} is no value of {name}")


def _size(text: str, field: str) -> int:
    return quantities.parse(text, field) if text else 0


def _check(limits: Limits, prefix: str, field: str) -> None:
    def refuse(name: str, words: str) -> InvalidArgument:
        return InvalidArgument(field or f"{prefix}{name}", f"{name} {words}" if field else words)

    for name in ("max_size", "max_files", "rate_bytes", "rate_lines"):
        if getattr(limits, name) < 0:
            raise refuse(name, "must not be below 0, which is off")
    if 0 < limits.max_size < MIN_SIZE:
        raise refuse("max_size", f"is {limits.max_size}, it must be {MIN_SIZE} bytes or more")
    if limits.max_files == 1:
        raise refuse("max_files", "must be 2 or more: the current file and one that was rotated; or 0")
    if limits.max_files and not limits.max_size:
        raise refuse("max_files", "needs max_size: when it is reached the log is rotated")
    if limits.compress and not limits.max_files:
        raise refuse("compress", "needs max_files: only rotated files are compressed")
    if not 0 < limits.burst < 1e6:
        raise refuse("burst", f"is {limits.burst:g}, it must be above 0 seconds, and below a million")
