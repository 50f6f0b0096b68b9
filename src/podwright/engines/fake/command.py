"""What a container's request and image say shall run: arguments, environment, directory and user.

The rules are those of `spec`, the same that an OCI runtime's container gets. A fake image has no files of its
own, so its passwd is made up: root, nobody, and the user whom the image itself names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from podwright.engines.base import Container
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, HostFacts, ImageConfig, RootfsFiles
from podwright.spec.linux.process import args, cwd, env
from podwright.spec.linux.user import user

HOSTNAME = "fake-node"
"""Of the node, for pods that have none of their own."""
IMAGE_USER = 1000
"""The number of a user whom an image names."""


Rule = Callable[[Draft, ContainerInput, HostFacts], None]
RULES: tuple[Rule, ...] = (args, env, cwd, user)


class Command(NamedTuple):
    argv: list[str]
    env: dict[str, str]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    hostname: str


def command(container: Container) -> Command:
    """InvalidArgument when nothing says what to run, or as whom it cannot be."""
    draft = _drafted(container, explain=False)
    return Command(
        draft.process["args"],
        dict(each.partition("=")[::2] for each in draft.process["env"]),
        draft.process["cwd"],
        draft.uid,
        draft.gid,
        tuple(draft.additional_gids),
        container.sandbox.config.hostname or HOSTNAME,
    )


def argv(container: Container) -> list[str]:
    """The arguments of `command` alone: a start needs nothing else."""
    draft = _drafted(container, explain=False, rules=(args,))
    arguments: list[str] = draft.process["args"]
    return arguments


def explained(container: Container) -> tuple[dict[str, Json], dict[str, str]]:
    """The `process` of an OCI spec as far as it counts here, and the origins of its values. Errors as
    `command`."""
    draft = _drafted(container, explain=True)
    assert draft.origins is not None
    return draft.process, draft.origins


def _drafted(container: Container, *, explain: bool, rules: Sequence[Rule] = RULES) -> Draft:
    image = ImageConfig.parse(container.image.config)
    request = ContainerInput(
        id=container.id,
        config=container.config,
        sandbox_id=container.sandbox.id,
        sandbox=container.sandbox.config,
        image=image,
        cgroups_path="",
        rootfs=RootfsFiles(passwd(container), group(container)),
    )
    draft, host = Draft(explain), HostFacts(hostname=HOSTNAME)
    for rule in rules:
        rule(draft, request, host)
    return draft


def passwd(container: Container) -> str:
    lines = ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/:/bin/false"]
    if name := _image_user(container):
        lines.append(f"{name}:x:{IMAGE_USER}:{IMAGE_USER}:{name}:/home/{name}:/bin/sh")
    return "\n".join(lines) + "\n"


def group(container: Container) -> str:
    lines = ["root:x:0:", "nobody:x:65534:"]
    if name := _image_user(container):
        lines.append(f"{name}:x:{IMAGE_USER}:")
    if (name := container.image.user.partition(":")[2]) and _is_new(name):
        lines.append(f"{name}:x:{IMAGE_USER}:")
    return "\n".join(lines) + "\n"


def _image_user(container: Container) -> str:
    name = container.image.user.partition(":")[0]
    return name if _is_new(name) else ""


def _is_new(name: str) -> bool:
    return bool(name) and not name.isdecimal() and name not in ("root", "nobody")
