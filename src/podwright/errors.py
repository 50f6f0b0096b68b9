"""The errors of the house: what went wrong, in the words of the one who can act on it.

Engines, core and the pure rooms raise these and nothing else for a condition that a caller can meet.
Only `server/` knows which gRPC status code each of them becomes, only `cli/` which exit status.
"""

from __future__ import annotations


class PodwrightError(Exception):
    """Base of all podwright errors; raised itself when something inside failed (gRPC: Unknown)."""


class NotFound(PodwrightError):
    """The named object does not exist."""


class AlreadyExists(PodwrightError):
    """The name is taken by another object."""


class InvalidArgument(PodwrightError):
    """The request itself is wrong. `field` is the request's path to the bad value, as a client wrote it
    ("config.metadata.name"), and stands in front of the message."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class FailedPrecondition(PodwrightError):
    """The object or the host is not in a state that allows this."""


class Unavailable(PodwrightError):
    """Not ready yet: recovery has not ended, or a needed service is away. Trying again may work."""


class DeadlineExceeded(PodwrightError):
    """The time the caller allowed has passed."""


class ResourceExhausted(PodwrightError):
    """A limit of podwright or of the host is reached."""


class Unimplemented(PodwrightError):
    """This engine cannot do that; the message says which field or call."""


class RegistryUnavailable(Unavailable):
    """No registry answered. The message starts with this name: the kubelet looks for it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"RegistryUnavailable: {message}")


class SignatureValidationFailed(PodwrightError):
    """The signature policy rejects the image. The message starts with this name: the kubelet looks for it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"SignatureValidationFailed: {message}")


class ImageVolumeMountFailed(FailedPrecondition):
    """An image cannot be mounted as a volume. The message starts with this name: the kubelet looks for it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ImageVolumeMountFailed: {message}")


class RROUnsupported(FailedPrecondition):
    """The runtime handler has no recursive read-only mounts. The message starts with this name: the kubelet
    looks for it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"RROUnsupported: {message}")


class CommandFailed(PodwrightError):
    """A program that podwright ran ended with an error; the message carries its own last words."""

    def __init__(self, program: str, status: int, output: str) -> None:
        words = output.strip() or "it printed nothing"
        how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
        super().__init__(f"{program} {how}: {words}")
        self.program = program
        self.status = status
        self.output = output
