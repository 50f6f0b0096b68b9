"""Rules that Windows and Darwin have in common, and Linux does otherwise or not at all."""

from __future__ import annotations

from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts
from podwright.spec.linux.process import override, text
from podwright.wire import cri_pb2 as cri

PAUSE_IMAGE = "io.kubernetes.cri.podsandbox.image-name"


def env(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The image's variables, then the request's, and none of our own. A name that stands twice stays twice,
    whatever its case: which one counts is for the system to say.

    Raises InvalidArgument for values that are not UTF-8.
    """
    asked = [f"{item.key}={text(item)}" for item in request.config.envs]
    set_env(draft, [*request.image.env, *asked], "image: Env; then the request")
    if draft.origins is not None:
        for variable in request.image.env:
            draft.note(f"process.env[{variable.partition('=')[0]}]", "image: Env")
        for item in request.config.envs:
            draft.note(f"process.env[{item.key}]", f"request: config.envs[{item.key}]")


def set_env(draft: Draft, layer: list[str], origin: str) -> None:
    """`layer` over what a base spec has."""
    variables = list(draft.process.get("env", ()))
    override(variables, layer)
    if variables:
        draft.process["env"] = variables
        draft.note("process.env", origin)


def warn_of_mount(draft: Draft, mount: cri.Mount, field: str, platform: str) -> None:
    """What a mount asks for that only Linux has."""
    for name, given in (
        ("propagation", mount.propagation != cri.MountPropagation.PROPAGATION_PRIVATE),
        ("recursive_read_only", mount.recursive_read_only),
        ("uidMappings", bool(mount.uidMappings)),
        ("gidMappings", bool(mount.gidMappings)),
    ):
        if given:
            draft.warn(f"{field}.{name}: {platform} has no such thing")


def pause_image(draft: Draft, name: str) -> None:
    if name:
        draft.annotations[PAUSE_IMAGE] = name
        draft.note(f"annotations[{PAUSE_IMAGE}]", "node: the sandbox image")
