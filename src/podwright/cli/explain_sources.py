"""What `explain` is asked about: Pod manifests, the JSON configurations that crictl takes, or a container
that exists; as pods and containers that an engine can plan.

A source keeps the tree it was read from, so that one setting of it can be changed.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import yaml
from google.protobuf import json_format

from podwright.core import validate
from podwright.core.containers import container_name
from podwright.core.images import image_message
from podwright.core.sandboxes import sandbox_name
from podwright.core.words import for_protobuf
from podwright.engines.base import Container, Image, Planner, Sandbox, SandboxFacts
from podwright.errors import InvalidArgument
from podwright.kube import node
from podwright.kube.files import id_ranges
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests import kinds, manifest
from podwright.kube.requests import planning, translate
from podwright.spec.signals import effective_stop_signal
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from podwright.config import Config

M = TypeVar("M", bound="Message")

SANDBOX_ID, CONTAINER_ID, POD_UID, POD_IP = "SANDBOX_ID", "CONTAINER_ID", "POD-UID", "POD_IP"
"""Stand where nobody can know yet what will stand there."""

_RUN = ("pod", "workload")
_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")
_PATH = re.compile(r"[^.\[\]]+(\[[^\]]+\]|\.[^.\[\]]+)*")


class Images(Protocol):
    async def find(self, reference: str) -> Image: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One container, or one pod as far as a process holds it."""

    sandbox: Sandbox
    container: Container | None = None
    to_come: tuple[str, ...] = ()
    """Host paths that are made before the container is."""

    @property
    def name(self) -> str:
        """Of the container; "" for the pod itself."""
        return self.container.config.metadata.name if self.container is not None else ""

    @property
    def title(self) -> str:
        pod = self.sandbox.config.metadata
        where = f"{pod.namespace}/{pod.name}" if pod.namespace not in ("", "default") else pod.name
        return f"{where}/{self.name}" if self.name else f"{where} (the pod's own process)"


class Source(Protocol):
    def with_setting(self, path: str, value: Any) -> Source:
        """The same with another value at `path`. InvalidArgument when there is no such place."""

    def with_handler(self, handler: str) -> Source: ...

    async def asked(self, planner: Planner, images: Images, config: Config) -> list[Asked]: ...


# Manifests


@dataclass(frozen=True)
class ManifestSource:
    trees: Sequence[tuple[Any, str]]
    """Each with the place it was read at."""
    handler: str | None = None

    @classmethod
    def read(cls, path: str) -> ManifestSource:
        return cls(manifest.documents(manifest.read_text(path), path))

    def with_setting(self, path: str, value: Any) -> ManifestSource:
        runs = [at for at, (tree, place) in enumerate(self.trees) if kinds.role(tree, place) in _RUN]
        if len(runs) != 1:
            raise InvalidArgument("--diff", f"{path}: there are {len(runs)} Pods, one is wanted")
        trees = list(self.trees)
        tree, place = trees[runs[0]]
        trees[runs[0]] = (put(tree, path, value), place)
        return replace(self, trees=trees)

    def with_handler(self, handler: str) -> ManifestSource:
        return replace(self, handler=handler)

    async def asked(self, planner: Planner, images: Images, config: Config) -> list[Asked]:
        found = []
        # A uid that is drawn anew each time would be a difference to everything.
        trees = [(_with_uid(tree), place) for tree, place in self.trees]
        for one in manifest.from_trees(trees, self.trees[0][1]):
            found += [each async for each in self._of_pod(one, planner, images, config)]
        return found

    async def _of_pod(
        self, one: manifest.Manifest, planner: Planner, images: Images, config: Config
    ) -> AsyncIterator[Asked]:
        handler = self.handler if self.handler is not None else translate.runtime_handler(one)
        recursive = _asks_recursive_read_only(one) and await planner.recursive_read_only(handler)
        features = cri.RuntimeHandlerFeatures(recursive_read_only_mounts=recursive)
        host = node.look(config, handlers={translate.runtime_handler(one): features})
        # What root would get is explained, whoever asks.
        host = replace(host, make_cgroups=config.node.pod_cgroups is not False and config.engine != "fake")
        directory = PodDirectory.of(host, one.namespace, one.name, one.uid)
        facts = node.PodFacts(
            ips=host.ips if one.spec.hostNetwork else (POD_IP,),
            user_ids=id_ranges.foreseen(host.root, directory) if one.spec.hostUsers is False else None,
            seen_at=planning.TIME,
        )
        sandbox = _sandbox(translate.sandbox_config(one, host, facts, str(directory.logs_root)), handler)
        for container in [*one.init_containers, *one.containers]:
            image = await images.find(container.image or "")
            variables = translate.environment(one, container, host, facts)
            mounts = planning.planned_mounts(one, container, host, facts, directory, variables)
            wanted = translate.container_config(
                one, container, image_message(image), host, facts, environment=variables, mounts=mounts
            )
            made = [
                each.hostPath.path
                for each in one.spec.volumes or []
                if each.hostPath is not None and (each.hostPath.type or "").endswith("OrCreate")
            ]
            yield Asked(sandbox, _container(sandbox, wanted, image), (str(directory.path), *made))
        yield Asked(sandbox)


def _asks_recursive_read_only(one: manifest.Manifest) -> bool:
    """Whether it matters that the handler can make mounts read-only all the way down: it costs a look."""
    mounts = [mount for container in one.all_containers() for mount in container.volumeMounts or []]
    return any(mount.recursiveReadOnly in ("IfPossible", "Enabled") for mount in mounts)


def _with_uid(tree: Any) -> Any:
    if not isinstance(tree, dict) or tree.get("kind") != "Pod" or not isinstance(tree.get("metadata"), dict):
        return tree
    return {**tree, "metadata": {**tree["metadata"], "uid": tree["metadata"].get("uid") or POD_UID}}


# CRI configurations


@dataclass(frozen=True)
class CriSource:
    pod: Mapping[str, Any]
    container: Mapping[str, Any] | None
    names: tuple[str, str] = ("--pod-config", "--container-config")
    """What the two are called in errors."""
    handler: str = ""
    ids: tuple[str, str] = (SANDBOX_ID, CONTAINER_ID)
    pause: int = 0
    """The pid of the pause process, where there is one already."""
    image: str = ""
    """The id of the image, where the configuration's name may mean another one by now."""

    @classmethod
    def read(cls, pod: str, container: str | None) -> CriSource:
        names = (pod, container or "--container-config")
        return cls(_read_tree(pod), _read_tree(container) if container is not None else None, names)

    def with_setting(self, path: str, value: Any) -> CriSource:
        """`path` begins with "config." (the container's) or "sandbox_config." (the pod's), as in origins."""
        which, _, rest = path.partition(".")
        if which == "sandbox_config" and rest:
            return replace(self, pod=put(self.pod, rest, value))
        if which == "config" and rest and self.container is not None:
            return replace(self, container=put(self.container, rest, value))
        raise InvalidArgument(
            "--diff", f"{path}: a setting of a CRI configuration begins with config. or sandbox_config."
        )

    def with_handler(self, handler: str) -> CriSource:
        return replace(self, handler=handler)

    async def asked(self, planner: Planner, images: Images, config: Config) -> list[Asked]:
        sandbox = replace(
            _sandbox(message(self.pod, cri.PodSandboxConfig(), self.names[0]), self.handler, self.ids[0]),
            facts=SandboxFacts(pid=self.pause),
        )
        if self.container is None:
            return [Asked(sandbox)]
        wanted = message(self.container, cri.ContainerConfig(), self.names[1])
        image = await images.find(self.image or wanted.image.image)
        container = _container(sandbox, wanted, image, self.ids[1])
        return [Asked(sandbox, container), Asked(sandbox)]


def message(tree: Mapping[str, Any], kind: M, name: str) -> M:
    """`tree` as a message. InvalidArgument names the field that it does not have, or that is of
    another type."""
    try:
        return json_format.ParseDict(for_protobuf(dict(tree), kind), kind)
    except json_format.ParseError as error:
        # What follows is a list of all fields, in other spellings than those that crictl has.
        fault = re.split(r"\.?\s+Available Fields", str(error))[0]
        raise InvalidArgument(name, fault.replace("\n", " ")) from error


def _read_tree(path: str) -> Mapping[str, Any]:
    text = manifest.read_text(path)
    try:
        tree = json.loads(text)
    except ValueError:
        try:
            tree = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidArgument(
                path, f"is neither JSON nor YAML: {' '.join(str(error).split())}"
            ) from error
    if not isinstance(tree, dict):
        raise InvalidArgument(path, "is no JSON object")
    return tree


# Both


def _sandbox(config: cri.PodSandboxConfig, handler: str, id: str = SANDBOX_ID) -> Sandbox:
    validate.sandbox_config(config, "sandbox_config")
    return Sandbox(id, sandbox_name(config.metadata), config, handler)


def _container(
    sandbox: Sandbox, config: cri.ContainerConfig, image: Image, id: str = CONTAINER_ID
) -> Container:
    validate.container_config(config)
    effective_stop_signal(config.stop_signal, image.stop_signal)
    log = config.log_path and posixpath.join(sandbox.config.log_directory, config.log_path)
    name = container_name(config.metadata, sandbox.config.metadata)
    return Container(id, name, sandbox, config, image, log)


def put(tree: Any, path: str, value: Any) -> Any:
    """A copy of `tree` with `value` at `path`: members joined by dots; elements of lists in brackets, by
    number or by name; keys with dots in brackets, too. What is missing on the way is made."""
    if not _PATH.fullmatch(path):
        raise InvalidArgument("--diff", f"{path!r} is no path like spec.containers[0].image")
    return _put(tree, _STEP.findall(path), value, path)


def _put(tree: Any, steps: Sequence[tuple[str, str]], value: Any, path: str) -> Any:
    if not steps:
        return value
    (member, bracketed), *rest = steps
    step = member or bracketed
    if tree is None and bracketed == "0":
        tree = []
    if isinstance(tree, list):
        place = _place(tree, step)
        if place is None:
            raise InvalidArgument("--diff", f"{path}: none of the {len(tree)} elements is {step!r}")
        copied = [*tree, None] if place == len(tree) else list(tree)
        copied[place] = _put(copied[place], rest, value, path)
        return copied
    if tree is not None and not isinstance(tree, Mapping):
        raise InvalidArgument("--diff", f"{path}: {step!r} would be inside of {tree!r}")
    return {**(tree or {}), step: _put((tree or {}).get(step), rest, value, path)}


def _place(elements: Sequence[Any], step: str) -> int | None:
    if step.isdecimal() and int(step) <= len(elements):
        return int(step)
    for place, each in enumerate(elements):
        names = (each.get("name"), (each.get("metadata") or {}).get("name")) if isinstance(each, dict) else ()
        if step in names:
            return place
    return None


def value_at(tree: Any, path: str) -> Any:
    """What stands at `path`, as `put` writes it; None when nothing does."""
    for member, bracketed in _STEP.findall(path) if _PATH.fullmatch(path) else ():
        step = member or bracketed
        if isinstance(tree, list):
            place = _place(tree, step)
            tree = tree[place] if place is not None and place < len(tree) else None
        else:
            tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree
