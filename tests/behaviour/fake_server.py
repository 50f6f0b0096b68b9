"""The server with the fake engine: an unprivileged user's, on a machine that need not have any program.

What the stage is for the oci engine, a network and registries, is a scenario here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from podwright.engines.fake import registry as fake_registry
from podwright.engines.fake.scenario import parse
from podwright.images.references import parse as reference
from tests.behaviour.control import Control
from tests.behaviour.server import Server
from tests.behaviour.stage import PASSWORD, USER, VARIANTS, Registry
from tests.behaviour.user import User

HOST, PRIVATE, SILENT = "registry.test:5000", "private.test:5000", "localhost:1"


class FakeServer(Server):
    engine = "fake"
    kernel = False

    def __init__(self, user: User) -> None:
        super().__init__(user.directory(user.home / "server"))
        self.user = user
        user.directory(self.logs)
        self.control = Control(self.root / "cri.control.sock")
        self.registry = Registry(HOST)
        self.scenario = _scenario(self.registry, PRIVATE, str(self.root))
        images = parse(self.scenario).images
        for name in VARIANTS:
            self.registry.ids[name] = fake_registry.offered(
                images, reference(self.registry.reference(name))
            ).id
        self.scenario_file = self.root / "scenario.yaml"
        self.scenario_file.write_text(json.dumps(self.scenario))
        self.config.write_text(
            f'root = "{self.lib}"\nrun = "{self.run}"\nlisten = "{self.socket}"\n'
            "[logs]\nallow_annotations = true\n"
        )
        self._is_down = False

    @property
    def options(self) -> list[str]:
        return [*super().options, "--scenario", str(self.scenario_file)]

    def launch(self) -> None:
        if self._is_down:
            self.control.post("restart")
            self._is_down = False
            return
        with (self.root / "server.log").open("ab") as log:
            self.process = self.user.start(
                ["-m", "podwright", "--config", str(self.config), "serve", *self.options],
                stdout=log,
                stderr=log,
            )

    def podwright(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.user.run("-m", "podwright", "--config", str(self.config), *arguments)

    def kill9(self) -> None:
        self._is_down = False
        super().kill9()

    def crash(self) -> None:
        # Its containers live in its memory: the process stays, and what serves in it dies.
        self.control.post("crash", {"downtime": None})
        self._is_down = True
        self._close_channel()

    @property
    def is_serving(self) -> bool:
        return super().is_serving and not self._is_down

    def runs(self, container: str) -> bool:
        found = [each for pod in self.control.get("state")["pods"] for each in pod["containers"]]
        return any(each["id"] == container and each["presence"] == "running" for each in found)

    def reboot(self) -> None:
        self.kill9()
        self.start()

    def restart(self) -> None:
        self.control.post("restart")
        self._close_channel()
        self.await_ready()

    def log_directory(self, name: str) -> Path:
        return self.user.directory(self.logs / name)

    def volume(self, directory: Path) -> Path:
        # The tests' directories are closed to other users.
        if not self.user.is_other:
            return directory
        volumes = self.user.directory(self.user.home / "volumes")
        return self.user.directory(volumes / directory.name)

    def private_registry(self, root: Path) -> AbstractContextManager[Registry]:
        return nullcontext(Registry(PRIVATE))

    @contextmanager
    def without_network(self) -> Iterator[str]:
        words = "no network is configured"
        self.control.patch("scenario", {"network_error": words})
        try:
            yield words
        finally:
            self.control.patch("scenario", {"network_error": None})

    @contextmanager
    def broken_network(self) -> Iterator[str]:
        words = "no-such-plugin"
        with self._fault("create_sandbox.network", "Unavailable", words):
            yield words

    def refusing_update(self) -> AbstractContextManager[object]:
        return self._fault("update_container.limits", "Unknown", "there are no such CPUs", count=1)

    @contextmanager
    def _fault(self, on: str, code: str, message: str, count: int = 0) -> Iterator[None]:
        error = {"code": code, "message": message}
        self.control.post("faults", {"on": on, "error": error, "count": count})
        try:
            yield
        finally:
            for each in self.control.get("faults")["faults"]:
                if not each["scripted"]:
                    self.control.delete(f"faults/{each['id']}")

    def leftovers(self) -> dict[str, object]:
        state = self.control.get("state")
        return {"pods": state["pods"], "processes": self.processes(), **state["orphans"]}

    def processes(self) -> dict[int, str]:
        """Its children: it never has any."""
        if self.process is None:
            return {}
        found = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return {int(pid): "a child" for file in found for pid in file.read_text().split()}

    def clean_leftovers(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _scenario(registry: Registry, private: str, mountpoint: str) -> dict[str, Any]:
    """What the suite's tests find on every engine."""
    return {
        "handlers": {"crun": {}, "runc": {}},
        "default_handler": "crun",
        "unknown_programs": "fail",
        "images": {
            "unknown": "refuse",
            "mountpoint": mountpoint,
            "items": [
                *(
                    {"reference": registry.reference(name), "config": _known(config)}
                    for name, config in VARIANTS.items()
                ),
                {
                    "reference": Registry(private).reference("busybox"),
                    "username": USER,
                    "password": PASSWORD,
                },
                {"reference": f"{SILENT}/*", "error": {"code": "RegistryUnavailable"}},
            ],
        },
        # A real pod's creation can be met half-way; this one's has to be held up.
        "faults": [
            {"on": place, "match": {"pod": pod}, "latency": latency}
            for place in ("create_sandbox.network", "create_container.rootfs", "remove_*.*")
            # The long ones must be met by clients that start at the same time, on a busy machine, too.
            for pod, latency in (("slow-[!cep]*", "30ms"), ("slow-[cep]*", "300ms"))
        ],
    }


def _known(config: Mapping[str, object]) -> dict[str, object]:
    """A fake image's configuration has no health check; a runtime never looks at one."""
    return {key: value for key, value in config.items() if key != "Healthcheck"}
