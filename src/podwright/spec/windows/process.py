"""What runs on Windows: arguments or one command line, working directory, user."""

from __future__ import annotations

import re

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.beyond_linux import set_env
from podwright.spec.inputs import HostFacts, ImageConfig
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.spec.windows.paths import under_c
from podwright.wire import cri_pb2 as cri

DEFAULT_CWD = "C:\\"
HOST_PROCESS_CWD = "C:\\hpc"
"""Where a HostProcess container finds its image's files (hcsshim mounts them there)."""

_SECURITY = "config.windows.security_context"
_NUMBER = re.compile(r"[+-]?[0-9]+")


def args(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    """`command` replaces the image's entrypoint and drops its cmd; `args` replaces the cmd only. An image
    with ArgsEscaped gets one command line instead of a list, because its own first word is one already.

    Raises InvalidArgument when nothing is left to run.
    """
    config, image = request.config, request.image
    argv = [*(config.command or image.entrypoint), *config.args]
    if not config.command and not config.args:
        argv += image.cmd
    if not argv:
        raise InvalidArgument(
            "config.command",
            "no command specified: neither command and args nor the image's Entrypoint and Cmd name one",
        )
    origin = _args_origin(config, image)
    if not image.args_escaped:
        draft.process["args"] = argv
        draft.note("process.args", origin)
        return
    from_image = not config.command and (bool(image.entrypoint) or not config.args)
    words = [argv[0] if from_image else escape(argv[0]), *map(escape, argv[1:])]
    draft.process["commandLine"] = " ".join(words)
    draft.note("process.commandLine", f"{origin}; image: ArgsEscaped")


def escape(word: str) -> str:
    r"""`word` as one word of a Windows command line: in quotes when it is empty or has blanks, a quote in it
    as `\"`, backslashes doubled in front of a quote only (Microsoft C, "Parsing C command-line
    arguments")."""
    if not word:
        return '""'
    escaped = re.sub(r'(\\*)"', r"\1\1\\" + '"', word)
    if " " not in word and "\t" not in word:
        return escaped
    return '"' + re.sub(r"(\\+)\Z", r"\1\1", escaped) + '"'


def _args_origin(config: cri.ContainerConfig, image: ImageConfig) -> str:
    if config.command:
        return "request: config.command, config.args"
    if config.args:
        return "image: Entrypoint; request: config.args" if image.entrypoint else "request: config.args"
    return "image: Entrypoint, Cmd"


def cwd(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    r"""The request's, else the image's, else C:\hpc for a HostProcess container, else the base spec's, else
    C:\."""
    if request.config.working_dir:
        path, origin = request.config.working_dir, "request: config.working_dir"
    elif request.image.working_dir:
        path, origin = request.image.working_dir, "image: WorkingDir"
    elif request.config.windows.security_context.host_process:
        path, origin = HOST_PROCESS_CWD, f"request: {_SECURITY}.host_process"
    elif draft.process.get("cwd"):
        return
    else:
        path, origin = DEFAULT_CWD, "default: the root"
    # The OCI demands an absolute path; there is no directory that another could be relative to.
    draft.process["cwd"] = under_c(path)
    draft.note("process.cwd", origin)


def user(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    """The request's user, else the image's USER, else whom the image's system chooses. Whether there is one
    of that name shows when the process starts."""
    asked = request.config.windows.security_context.run_as_username
    _set_user(draft, asked, request.image.user)


def _set_user(draft: WindowsDraft, asked: str, image: str) -> None:
    """Raises InvalidArgument for ids, and for a name with a group: Windows has neither."""
    name, origin = (asked, f"request: {_SECURITY}.run_as_username") if asked else (image, "image: User")
    if _NUMBER.fullmatch(name) or ":" in name:
        raise InvalidArgument(
            f"{_SECURITY}.run_as_username" if asked else "image User",
            f"{name!r} is no user of Windows: give a name such as ContainerUser or DOMAIN\\User",
        )
    # The numbers mean nothing here; shims and tools that read specs of all platforms expect the members.
    draft.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [0]}
    draft.note("process.user", "rule: numbers without a meaning on Windows")
    if name:
        draft.process["user"]["username"] = name
        draft.note("process.user.username", origin)


def hostname(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    _set_hostname(draft, request.sandbox.hostname)


def _set_hostname(draft: WindowsDraft, name: str) -> None:
    draft.hostname = name
    if name:
        draft.note("hostname", "request: sandbox hostname")


def pause_process(draft: WindowsDraft, request: WindowsSandboxInput, host: HostFacts) -> None:
    """The pause image's program as it stands: a sandbox's request has no command of its own.

    Raises FailedPrecondition for an image without one.
    """
    image = request.image
    argv = [*image.entrypoint, *image.cmd]
    if not argv:
        raise FailedPrecondition(
            f"pause image {request.image_name or '(unnamed)'}: its configuration has neither Entrypoint nor "
            "Cmd; configure another sandbox image"
        )
    draft.process["args"] = argv
    draft.note("process.args", "node: the pause image's Entrypoint, Cmd")
    draft.process["cwd"] = under_c(image.working_dir) if image.working_dir else DEFAULT_CWD
    draft.note(
        "process.cwd", "node: the pause image's WorkingDir" if image.working_dir else "default: the root"
    )
    set_env(draft, list(image.env), "node: the pause image's Env")
    _set_user(draft, request.config.windows.security_context.run_as_username, image.user)
    _set_hostname(draft, request.config.hostname)
