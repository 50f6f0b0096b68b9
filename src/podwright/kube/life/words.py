"""The words in which a kubelet repeats what a runtime said, and Go's way to write a duration. Pure."""

from __future__ import annotations

from podwright.errors import PodwrightError, RegistryUnavailable

_NO_CODES = (PodwrightError, RegistryUnavailable)


def rpc(error: BaseException) -> str:
    """ "rpc error: code = NotFound desc = …": gRPC's text of an error, also of one that came from this
    process."""
    return f"rpc error: code = {code(error)} desc = {error}"


def pull(error: BaseException) -> str:
    """The same of a pull: there a kubelet leaves out the code that says nothing."""
    return str(error) if code(error) == "Unknown" else rpc(error)


def code(error: BaseException) -> str:
    """The name of the gRPC status code that the error has on the wire."""
    kind = type(error)
    if not isinstance(error, PodwrightError) or kind in _NO_CODES or kind.__name__ not in _CODES:
        return "Unknown"
    return kind.__name__


_CODES = {
    "AlreadyExists",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidArgument",
    "NotFound",
    "ResourceExhausted",
    "Unavailable",
    "Unimplemented",
}


def duration(seconds: float) -> str:
    """ "1m30s", "10s", "350ms", "1.234s": as Go prints it, to the millisecond."""
    milliseconds = int(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
