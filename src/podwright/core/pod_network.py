"""What the kubelet tells of the node's pod network: kept, because it is told only when it changes."""

from __future__ import annotations

import logging

from podwright.engines.base import Engine
from podwright.errors import PodwrightError
from podwright.network import pod_cidr
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri

SCHEMA = "CREATE TABLE IF NOT EXISTS node (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"
KEY = "pod_cidr"

log = logging.getLogger(__name__)


class PodNetwork:
    def __init__(self, engine: Engine, database: Database) -> None:
        self._engine = engine
        self._database = database
        self.cidr = ""
        """As it was told: "10.1.0.0/16,fd00::/64"; "" before that."""

    async def open(self) -> None:
        """Go on with what an earlier process was told."""
        self._database.ensure(SCHEMA)
        row = self._database.execute(f"SELECT value FROM node WHERE key = '{KEY}'").fetchone()
        if row is None:
            return
        self.cidr = row[0]
        try:
            await self._engine.use_pod_cidrs(pod_cidr.parse(self.cidr, KEY))
        except PodwrightError as error:
            log.error("the pods' network %s: %s", self.cidr, error)

    async def update(self, request: cri.UpdateRuntimeConfigRequest) -> None:
        """InvalidArgument, FailedPrecondition. A request that names no addresses changes nothing."""
        told = request.runtime_config.network_config.pod_cidr
        cidrs = pod_cidr.parse(told, "runtime_config.network_config.pod_cidr")
        if not cidrs:
            return
        await self._engine.use_pod_cidrs(cidrs)
        # Kept last: a kubelet that was not answered tells it again.
        cidr = ",".join(cidrs)
        self._database.execute("INSERT OR REPLACE INTO node (key, value) VALUES (?, ?)", (KEY, cidr))
        self.cidr = cidr
