"""`podwright run --dry-run`: the CRI calls that a start would make, in order, without making them.

The runtime is asked what it is and which images it has, and nothing else. What only a start would know
stands as a placeholder (`kube.planning`); values of Secrets are hidden unless somebody asks for them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, text_format

from podwright.cli.output import Document
from podwright.cli.run_inputs import Inputs, of_trees, trees
from podwright.errors import PodwrightError
from podwright.kube.failures import Failure
from podwright.kube.node import Node, look, observe
from podwright.kube.requests import planning
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer
    from podwright.kube.requests.planning import Call

POD_UID = "POD_UID"
SHORTEST = 4
"""Characters of a secret value that is also hidden where it is only a part of something."""


async def dry_run(
    inputs: Inputs, door: Door, form: Document, *, endpoint: str | None = None, show_secrets: bool = False
) -> None:
    """Print the calls. InvalidArgument for bad manifests; a Failure in the kubelet's words for a container
    that could not even be asked for."""
    documents = trees(inputs)
    manifests = of_trees(inputs, documents)
    async with _asked(door, endpoint) as runtime:
        node = await observe(runtime, door.config()) if runtime is not None else look(door.config())
        planned = [(one, _planned(one, node, await _images(runtime, one), show_secrets)) for one in manifests]
    text = _written(planned, form)
    given = {str((tree.get("metadata") or {}).get("uid")) for tree, _ in documents}
    for one in manifests:
        # It would be another one the next time.
        if one.uid not in given:
            text = text.replace(one.uid, POD_UID)
    print(text)


@asynccontextmanager
async def _asked(door: Door, endpoint: str | None) -> AsyncIterator[Cri | None]:
    """Who would run the pods; None where this process would and may not: then the images are not known."""
    from podwright.cli.share import reached

    async with AsyncExitStack() as stack:
        if endpoint is not None:
            yield await stack.enter_async_context(reached(endpoint))
            return
        try:
            runtime = await stack.enter_async_context(door.cri())
        except (PodwrightError, OSError):
            if door.socket is not None:
                raise
            runtime = None
        yield runtime


async def _images(runtime: Cri | None, manifest: Manifest) -> dict[str, cri.Image]:
    """Those that are there, by the manifest's references."""
    wanted = [one.image or "" for one in manifest.all_containers()]
    wanted += [one.image.reference or "" for one in manifest.spec.volumes or [] if one.image is not None]
    found = {}
    for reference in dict.fromkeys(wanted):
        if runtime is not None and reference:
            spec = cri.ImageSpec(image=planning.complete(reference))
            answer = await runtime.image_status(cri.ImageStatusRequest(image=spec))
            if answer.HasField("image"):
                found[reference] = answer.image
    return found


def _planned(
    manifest: Manifest, node: Node, images: Mapping[str, cri.Image], show_secrets: bool
) -> list[Call]:
    try:
        calls = planning.plan(manifest, node, images=images)
    except Failure as error:
        where = "".join(f"container {name!r}: " for name in getattr(error, "__notes__", ()))
        raise Failure(f"Pod {manifest.namespace}/{manifest.name}", f"{where}{error}") from error
    return calls if show_secrets else [(name, hidden(manifest, message)) for name, message in calls]


def _each(planned: Sequence[tuple[Manifest, list[Call]]]) -> Iterator[tuple[Manifest, Call]]:
    for manifest, calls in planned:
        for call in calls:
            yield manifest, call


# Secrets


def hidden(manifest: Manifest, message: Message) -> Message:
    """The request without what comes from Secrets: whole variables, and their values wherever they stand in
    other variables, commands and arguments."""
    if not isinstance(message, cri.CreateContainerRequest):
        return message
    container = manifest.container(message.config.metadata.name)
    if container is None:
        return message
    shown = copy.deepcopy(message)
    variables = _from_secrets(manifest, container)
    values = {
        text: f"<secret {name}/{key}>"
        for (namespace, name), secret in manifest.objects.secrets.items()
        if namespace == manifest.namespace
        for key, value in secret.data.items()
        if (text := value.decode(errors="replace"))
    }
    for variable in shown.config.envs:
        if variable.key in variables:
            variable.value = f"<secret {variables[variable.key]}>".encode()
        else:
            variable.value = _without(variable.value.decode(errors="replace"), values).encode()
    for words in (shown.config.command, shown.config.args):
        words[:] = [_without(one, values) for one in words]
    return shown


def _from_secrets(manifest: Manifest, container: AnyContainer) -> dict[str, str]:
    """ "NAME/KEY" of the Secret, by variable."""
    found = {}
    for source in container.envFrom or []:
        if source.secretRef is not None:
            secret = manifest.objects.secret(manifest.namespace, source.secretRef.name or "")
            for key in secret.data if secret is not None else ():
                found[f"{source.prefix or ''}{key}"] = f"{source.secretRef.name}/{key}"
    for variable in container.env or []:
        found.pop(variable.name, None)
        reference = variable.valueFrom.secretKeyRef if variable.valueFrom is not None else None
        if reference is not None:
            found[variable.name] = f"{reference.name}/{reference.key}"
    return found


def _without(text: str, values: Mapping[str, str]) -> str:
    for value in sorted(values, key=len, reverse=True):
        if text == value or len(value) >= SHORTEST:
            text = text.replace(value, values[value])
    return text


# Forms


def _written(planned: Sequence[tuple[Manifest, list[Call]]], form: Document) -> str:
    match form:
        case Document.JSON:
            return json.dumps([_tree(*each) for each in _each(planned)], indent=2, ensure_ascii=False)
        case Document.YAML:
            import yaml

            found = [_readable(*each) for each in _each(planned)]
            return str(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110)).rstrip("\n")
    return "\n\n".join("\n".join(_text(*each)) for each in planned)


def _text(manifest: Manifest, calls: Sequence[Call]) -> Iterator[str]:
    yield f"# Pod {manifest.namespace}/{manifest.name}: {len(calls)} calls"
    for number, (name, request) in enumerate(calls, 1):
        yield f"\n# {number}. {name}{_of(request)}"
        shown = copy.deepcopy(request)
        repeated = number > 1 and any(field.name == "sandbox_config" for field, _ in request.ListFields())
        if repeated:
            shown.ClearField("sandbox_config")
        yield text_format.MessageToString(shown, as_utf8=True).rstrip("\n")
        if repeated:
            yield "# sandbox_config: that of call 1"


def _of(request: Message) -> str:
    if isinstance(request, cri.CreateContainerRequest):
        return f" {request.config.metadata.name}"
    return f" {request.image.image}" if isinstance(request, cri.PullImageRequest) else ""


def _tree(manifest: Manifest, call: Call) -> dict[str, Any]:
    """protobuf's own mapping: camelCase, bytes in base64."""
    name, request = call
    return {
        "pod": f"{manifest.namespace}/{manifest.name}",
        "call": name,
        "request": json_format.MessageToDict(request),
    }


def _readable(manifest: Manifest, call: Call) -> dict[str, Any]:
    """With the names of the CRI, and variables as text."""
    name, request = call
    tree = json_format.MessageToDict(request, preserving_proto_field_name=True)
    if isinstance(request, cri.CreateContainerRequest):
        for told, variable in zip(tree["config"].get("envs", []), request.config.envs, strict=True):
            told["value"] = variable.value.decode(errors="replace")
    return {"pod": f"{manifest.namespace}/{manifest.name}", "call": name, "request": tree}
