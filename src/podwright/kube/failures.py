"""What keeps a container or a pod from running: a reason for programs, a message for people.

The reasons are those of a kubelet's container statuses, pod statuses and events.
"""

from __future__ import annotations

from podwright.errors import PodwrightError


class Failure(PodwrightError):
    """`reason` as in a status ("CreateContainerConfigError"); `message` beside it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason
        self.message = message


class ConfigError(Failure):
    """The container cannot be described to the runtime: a reference leads nowhere, its user may not be."""

    def __init__(self, message: str) -> None:
        super().__init__("CreateContainerConfigError", message)


class CreateError(Failure):
    """The runtime would not create the container."""

    def __init__(self, message: str) -> None:
        super().__init__("CreateContainerError", message)


class StartError(Failure):
    """The runtime would not start the container it created."""

    def __init__(self, message: str) -> None:
        super().__init__("RunContainerError", message)


class HookError(Failure):
    """The container's post-start hook failed, so it is killed."""

    def __init__(self, message: str) -> None:
        super().__init__("PostStartHookError", message)


class SandboxError(Failure):
    """The runtime would not make the pod's sandbox."""

    def __init__(self, message: str) -> None:
        super().__init__("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")


class SandboxConfigError(Failure):
    """The sandbox cannot be described to the runtime: a name is too long, a class is not there."""

    def __init__(self, message: str) -> None:
        super().__init__("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")


class MountError(Failure):
    """A volume cannot be made; the pod waits for it."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__("FailedMount", f'MountVolume.SetUp failed for volume "{volume}" : {message}')


class Refused(Failure):
    """The node does not take the pod at all; it fails without a sandbox."""


class ImageError(Failure):
    """An image is not there: ErrImagePull, ImagePullBackOff, ErrImageNeverPull, InvalidImageName,
    ImageInspectError, or what a runtime's error names (RegistryUnavailable, SignatureValidationFailed)."""
