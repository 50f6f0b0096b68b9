"""The server with the docker engine: on a Docker Engine of this session, with the oci engine's network and
registries."""

from __future__ import annotations

from pathlib import Path

from tests.behaviour.oci_server import OciServer
from tests.behaviour.stage import Network, OpenRegistry
from tests.docker import outage
from tests.docker.daemon import Daemon


class DockerServer(OciServer):
    engine = "docker"

    def __init__(self, root: Path, network: Network, registry: OpenRegistry, daemon: Daemon) -> None:
        super().__init__(root, network, registry)
        self.daemon = daemon
        # On hosts without CAP_SYS_RESOURCE only that runtime starts what asks for it.
        docker = f'[docker]\nendpoint = "{daemon.endpoint}"\ndefault_runtime = "wrapped"\n'
        self.config.write_text(self.config.read_text() + docker)

    def runs(self, container: str) -> bool:
        return any(
            container in (each["Labels"] or {}).values() and each["State"] == "running"  # type: ignore[attr-defined]
            for each in self.daemon.containers()
        )

    def reboot(self) -> None:
        self.kill9()
        outage.power_off(self.daemon)
        outage.start_again(self.daemon)
        self.start()

    def leftovers(self) -> dict[str, object]:
        own = [each["Names"] for each in self.daemon.containers() if str(self.lib) in str(each["Labels"])]
        return {**super().leftovers(), "containers of Docker": own}
