"""The node of the recordings as far as this machine can be one: the oci engine with roots of its own, the
README's images in its store and in registries on loopback, and files in the place of /srv/golden.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import podwright as library
from podwright.api import Cri
from podwright.config import CniConfig, Config, HandlerConfig, ImageConfig
from podwright.engines.fake.subject import Subject
from podwright.kube import volumes
from podwright.kube.files import pod_cgroups
from podwright.kube.life.wakes import Feed
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node, observe
from podwright.kube.requests.container import container_hash
from podwright.linux import cgroups, mounts
from podwright.testing.calls import Call, Calls
from podwright.wire import cri_pb2 as cri
from tests.behaviour.stage import free_port, push
from tests.images.conftest import run_registry
from tests.kube import golden, golden_stage
from tests.kube.golden_words import RECORDED, Words
from tools import busybox_rootfs
from tools.oci_image import Layout

PATIENCE = 75.0
"""Seconds for a part of a case at most, on a machine that others use, too."""
LATE = 5
"""Seconds by which a busy machine may be late."""
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
APP_USER = "appuser:x:1234:2345:appuser:/home/app:/bin/sh\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\nappuser:x:2345:\nothers:x:3456:appuser\n"
APP = "trap 'exit 137' TERM\nhttpd -f -p \"$1\" -h /srv &\nwait\n"
"""Ends at once as those of the recordings ended when their grace was over: that takes half a minute."""
ALICE = "alice:$2y$05$abcdefghijklmnopqrstuuLZNkQ1VL/QsuI/EN8Qq4Ia5232KBp7m\n"
"""With the password of pull-secret, "wonder": docker-registry takes bcrypt only."""
MOUNTED: Mapping[str, tuple[str, ...]] = {"mount-propagation": ("shared",), "mount-readonly": ("dir/sub",)}
"""Mounts in the place of /srv/golden, by the case that is about them."""
PUBLIC = ("registry.test", "pull.test", "other.test")
PORTS = ("28080", "28081", "25353", "28090")
"""Of the host: others are used, for they may be taken."""


class Recorder:
    """A runtime whose calls are remembered."""

    def __init__(self, runtime: Cri, heard: Callable[[], None]) -> None:
        self._runtime, self._heard = runtime, heard
        self.calls = Calls()
        self._free = asyncio.Event()
        self._free.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Calls that come meanwhile wait for the end of this."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def __getattr__(self, name: str) -> Any:
        method, rpc = getattr(self._runtime, name), name.title().replace("_", "")

        async def pass_on(request: Any) -> Any:
            await self._free.wait()
            return await method(request)

        if rpc not in (*RECORDED, "ImageStatus"):
            return pass_on

        async def ask(request: Any) -> Any:
            await self._free.wait()
            call = self.calls.begin(rpc, request, Subject(), False)
            try:
                answer = await method(request)
            except BaseException as error:
                self.calls.end(call, None, error)
                raise
            finally:
                self._heard()
            self.calls.end(call, answer)
            return answer

        return ask


@dataclass(frozen=True)
class Ended:
    """The calls that have ended."""

    calls: Calls

    def __iter__(self) -> Iterator[Call]:
        return (one for one in self.calls if one.ended)


@dataclass(frozen=True)
class Machine:
    runtime: Cri
    node: Node
    feed: Feed
    root: Path
    ports: Mapping[str, str]
    """By what the recordings call them."""
    private: str
    """What private.test is here: credentials are for the registry of this very name."""


class RealStage:
    """One case that plays on real containers."""

    def __init__(self, machine: Machine, case: str) -> None:
        self.case, self.machine = case, machine
        self.root = machine.root / "cases" / case
        self.root.mkdir(parents=True)
        golden_stage.files(self.root)
        self.steps: tuple[str, ...] = ()
        self._graces = {
            one["request"]["container_id"]: int(one["request"].get("timeout", 0))
            for one in golden.calls(case)
            if one.get("call") == "StopContainer"
        }
        self._mounted = [self.root / "golden" / name for name in MOUNTED.get(case, ())]
        for path in self._mounted:
            mounts.tmpfs(path, size=1 << 16)
            mounts.make_shared(path)
        self.uid = str(uuid.uuid4())
        self.changed = asyncio.Event()
        made = self.manifest()
        self.recorder = Recorder(machine.runtime, self.changed.set)
        node = replace(
            golden.node(case),
            root=machine.node.root, pod_logs=machine.node.pod_logs, seccomp_root=machine.node.seccomp_root,
            cgroup_root=machine.node.cgroup_root, handlers=machine.node.handlers,
        )  # fmt: skip
        self.worker = PodWorker(
            cast(Cri, self.recorder), made, node, feed=machine.feed, source="file" if made.static else "api"
        )
        self.worker.subscribe(lambda *_: self.changed.set())
        self.worker.recorder.subscribe(lambda _: self.changed.set())
        places = {
            self.uid: "${POD_UID}",
            str(node.root): "${KUBELET_ROOT}",
            str(node.pod_logs): "${POD_LOG_DIR}",
            str(self.root / "golden"): "/srv/golden",
            node.cgroup_root: "",
            machine.private: "private.test",
            **{real: name for name, real in machine.ports.items()},
            # Names of images go into them.
            **{
                container_hash(one): container_hash(recorded)
                for one, recorded in zip(
                    made.all_containers(), golden.read(case).all_containers(), strict=True
                )
            },
        }
        self._numbers = {int(real): int(name) for name, real in machine.ports.items()}
        self._words = Words(Ended(self.recorder.calls), self.worker, places, self._numbers)
        self.life: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self.worker.run())
        self.life.add_done_callback(lambda _: self.changed.set())

    async def until(self, condition: Callable[[], bool]) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not self._holds(condition) and not self.life.done():
                    await self.changed.wait()
                    self.changed.clear()
                    await asyncio.sleep(0.02)  # looking takes time, which the pods need
        return self._holds(condition)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        if (ids := self.worker.pod.facts.user_ids) is not None:
            self._numbers[ids] = golden.USER_IDS
        return condition()

    def calls(self) -> list[dict[str, Any]]:
        """Those that have ended: what the next step finds is there. Not told are probes that came when their
        container was gone, and that a little of the grace period had passed."""
        return [
            self._on_time(one)
            for one in self._words.calls()
            if (one["call"], one.get("error")) != ("ExecSync", True)
        ]

    def _on_time(self, entry: dict[str, Any]) -> dict[str, Any]:
        request = entry["request"]
        wanted = self._graces.get(request.get("container_id"), 0)
        if entry["call"] == "StopContainer" and wanted - LATE <= int(request.get("timeout", 0)) < wanted:
            return {**entry, "request": {**request, "timeout": str(wanted)}}
        return entry

    def events(self) -> list[tuple[str, str, str, str]]:
        return self._words.events()

    def status(self) -> dict[str, Any]:
        return self._words.status()

    def text(self, text: str) -> str:
        """In the recordings' words."""
        return self._words.text(text)

    def manifest(self, *steps: str) -> Manifest:
        self.steps = steps
        made = golden_stage.read(self.case, self.root, *steps)
        assert made.pod.metadata is not None
        made.pod.metadata.uid = self.uid
        if "kubernetes.io/config.hash" in (made.pod.metadata.annotations or {}):
            made.pod.metadata.annotations["kubernetes.io/config.hash"] = self.uid  # type: ignore[index]
        for container in made.all_containers():
            container.image = (container.image or "").replace("private.test", self.machine.private)
            for port in container.ports or []:
                if (name := str(port.hostPort)) in PORTS:
                    port.hostPort = int(self.machine.ports[name])
            container.args = [self.machine.ports.get(one, one) for one in container.args or []] or None
            probe = container.livenessProbe
            if probe is not None and probe.httpGet is not None and str(probe.httpGet.port) in PORTS:
                probe.httpGet.port = int(self.machine.ports[str(probe.httpGet.port)])
        for secret in made.objects.secrets.values():
            for key, value in secret.data.items():
                cast(dict[str, bytes], secret.data)[key] = value.replace(
                    b"private.test", self.machine.private.encode()
                )
        return made

    async def lose_sandbox(self) -> None:
        # As the kubelet of the recording, the worker has seen all of it run, and sees nothing half stopped:
        # it would first stop a container that still runs.
        async with asyncio.timeout(PATIENCE):
            while not self.worker.idle.is_set():
                await self.worker.idle.wait()
        sandbox = self.worker.seen.sandboxes[0]
        async with self.recorder.held():
            await self.machine.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))

    async def close(self) -> None:
        """Nothing of it is left, however it ended."""
        if not self.life.done():
            self.life.cancel()
        await asyncio.wait({self.life})
        await self.worker.discard()
        await asyncio.to_thread(volumes.remove, self.worker.directory)
        for path in self._mounted:
            mounts.unmount(path)

    def left(self) -> list[str]:
        """What of the pod is still there."""
        directory, node = self.worker.directory, self.worker.pod.node
        group = pod_cgroups.parent(self.worker.manifest, node)
        groups = [str(path) for path in cgroups.directories(group) if path.exists()]
        paths = [str(path) for path in (directory.path, directory.logs_root) if path.exists()]
        mounted = [one.target for one in mounts.read_table() if self.uid in one.target]
        return [*groups, *paths, *mounted]


def _hashes(manifest: Manifest) -> list[str]:
    return [container_hash(one) for one in manifest.all_containers()]


@asynccontextmanager
async def machine(root: Path) -> AsyncIterator[Machine]:
    """All of it gone in the end; who uses it sees to the pods."""
    parent = f"/pwtg{os.getpid()}"
    async with AsyncExitStack() as stack:
        layouts = await asyncio.to_thread(images, root / "images")
        registries, private = await asyncio.to_thread(stack.enter_context, served(root, layouts))
        config = Config(
            root=str(root / "root"), run=str(root / "run"), cgroup_parent=parent,
            handlers={"crun": HandlerConfig(path="crun"), "secondary": HandlerConfig(path="crun")},
            cni=CniConfig(conf_dir=str(root / "no-cni")),
            images=ImageConfig(registries_conf=str(registries)),
        )  # fmt: skip
        runtime = await stack.enter_async_context(library.open(config=config))
        present = [("registry.test", name) for name in golden_stage.CONFIGS] + [("other.test", "busybox:2")]
        for registry, name in present:
            await runtime.import_image(f"oci:{layouts}:{tag(registry, name)}", f"{registry}/{name}")
        profiles = root / "root" / "seccomp" / "profiles"
        profiles.mkdir(parents=True)
        (profiles / "allow.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
        seen = await observe(runtime.cri, config)
        node = replace(
            seen, pod_logs=root / "logs", seccomp_root=str(root / "root" / "seccomp"), cgroup_root=parent
        )
        feed = await stack.enter_async_context(Feed(runtime.cri))
        try:
            ports = {name: str(free_port()) for name in PORTS}
            yield Machine(runtime.cri, node, feed, root, ports, private)
        finally:
            await asyncio.to_thread(cgroups.prune, parent)


def tag(registry: str, name: str) -> str:
    return f"{registry}-{name}".replace(":", "-")


def images(directory: Path) -> Path:
    """An OCI layout with every image of the README: each registry's with ids of its own."""
    base = busybox_rootfs.make(directory / "base")
    (base / "etc/passwd").write_text(USERS + APP_USER)
    (base / "etc/group").write_text(GROUPS)
    app, data = directory / "app", directory / "data"
    (app / "srv").mkdir(parents=True)
    (app / "srv/run.sh").write_text(APP)
    (app / "srv/index.html").write_text("app\n")
    (data / "d").mkdir(parents=True)
    (data / "d/hello.txt").write_text("image-volume\n")
    layout = Layout(directory / "layout")
    below = layout.layer(base)
    layers = {"app:1": [below, layout.layer(app)], "data:1": [layout.layer(data)]}
    for registry in ("registry.test", "pull.test", "private.test", "other.test"):
        for name, config in golden_stage.CONFIGS.items():
            labels = {} if name == "data:1" else {"Labels": {"registry": registry}}
            layout.add(tag(registry, name), layers.get(name, [below]), {**config, **labels})
    return layout.directory


@contextmanager
def served(root: Path, layout: Path) -> Iterator[tuple[Path, str]]:
    """The registries that the cases pull from: the registries.conf that leads to them, and the address of the
    one that is private."""
    with ExitStack() as stack:
        users = root / "htpasswd"
        users.write_text(ALICE)
        auth = f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n"
        everyone = stack.enter_context(run_registry(root / "registry"))
        private = stack.enter_context(run_registry(root / "private", auth=auth))
        for name, source in (
            ("pull.test/busybox:1", "busybox:1"),
            ("pull.test/busybox:2", "busybox:2"),
            ("other.test/busybox:2", "busybox:2"),
            ("other.test/busybox:latest", "busybox:1"),
        ):
            push(layout, tag(name.partition("/")[0], source), f"{everyone.address}/{name}")
        push(layout, tag("private.test", "busybox:1"), f"{private.address}/busybox:1", "alice:wonder")
        conf = root / "registries.conf"
        conf.write_text(
            "".join(
                f'[[registry]]\nprefix = "{name}"\nlocation = "{to}"\ninsecure = true\n'
                for name, to in (
                    *(
                        (one, f"{everyone.address}/{one}")
                        for one in ("registry.test", "pull.test", "other.test")
                    ),
                    (private.address, private.address),
                )
            )
        )
        yield conf, private.address
