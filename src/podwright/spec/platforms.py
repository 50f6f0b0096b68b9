"""Platforms of sandboxes: their names, and what follows from one alone."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from podwright.errors import FailedPrecondition
from podwright.wire import cri_pb2 as cri

SUPPORTED = ("linux", "windows", "darwin")
"""Operating systems there is a spec builder for."""

_FORM = re.compile(r"(?P<os>[a-z0-9_.-]+)(\((?P<version>[^()]*)\))?(/(?P<arch>[^/]+))?(/(?P<variant>[^/]+))?")
_OS = {"macos": "darwin"}
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


class Platform(NamedTuple):
    """In Go's spelling, as image indexes and containerd write it: OS[(VERSION)][/ARCHITECTURE[/VARIANT]]."""

    os: str
    architecture: str = ""
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Any case, common other names of systems and processors. Raises FailedPrecondition for what is no
        platform, or one without a spec builder: a sandbox's platform is its handler's, not its request's."""
        match = _FORM.fullmatch(text.strip().lower())
        if not match:
            raise FailedPrecondition(
                f"spec platform {text!r}: not of the form OS/ARCHITECTURE, such as linux/amd64"
            )
        system = _OS.get(match["os"], match["os"])
        if system not in SUPPORTED:
            raise FailedPrecondition(
                f"unsupported spec platform: {system} (of {text}); there are {', '.join(SUPPORTED)}"
            )
        architecture = match["arch"] or ""
        return cls(
            system,
            _ARCHITECTURES.get(architecture, architecture),
            match["variant"] or "",
            match["version"] or "",
        )

    def __str__(self) -> str:
        version = f"({self.os_version})" if self.os_version else ""
        return "/".join(part for part in (self.os + version, self.architecture, self.variant) if part)


def host_network(platform: Platform, config: cri.PodSandboxConfig) -> bool:
    """Whether the pod lives in the host's network: on Windows a HostProcess pod does, on Darwin every pod."""
    if platform.os == "windows":
        return config.windows.security_context.host_process
    if platform.os == "darwin":
        return True
    return config.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE
