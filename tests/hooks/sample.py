"""Hooks for test_hooks.py to find."""

from podwright import hooks
from podwright.wire import cri_pb2 as cri


@hooks.validate("RunPodSandbox")
def refuse(request: cri.RunPodSandboxRequest) -> None:
    raise hooks.Rejected("", "not here")


@hooks.watch(order=7)
def later(event: cri.ContainerEventResponse) -> None:
    pass
