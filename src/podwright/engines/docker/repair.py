"""What belongs to this state root in Docker and to no record, and the networks of sandboxes that are gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from podwright.engines.base import Json, Orphan
from podwright.engines.docker import labels
from podwright.engines.docker.objects import Objects
from podwright.network.cni import Attachment, Cni
from podwright.steps import step

log = logging.getLogger(__name__)

_CONTAINER, _NETWORK = "docker", "cni"


class Repair:
    def __init__(self, objects: Objects, network: Cni | None) -> None:
        self._objects = objects
        self._network = network

    async def forget_others(self, sandboxes: set[str], *, sole_user: bool) -> None:
        with step("remove lookups"):
            for each in await self._objects.all():
                if _is_lookup(each) and not self._expected(each):
                    await self._objects.remove_docker(each["Id"])
        if self._network is None:
            return
        with step("release networks"):
            removed = await self._network.gc(sandboxes, sole_user=sole_user)
        if removed:
            log.warning("networks of sandboxes that are gone were released: %s", ", ".join(removed))

    async def orphans(self, known: set[str]) -> Sequence[Orphan]:
        found = [
            Orphan(_CONTAINER, each["Id"], " ".join(name.lstrip("/") for name in each.get("Names") or ()))
            for each in await self._objects.all()
            if _id(each) not in known and not (_is_lookup(each) and self._expected(each))
        ]
        if self._network is not None:
            found += [Orphan(_NETWORK, id) for id in sorted(self._network.cached_ids() - known)]
        return found

    async def remove(self, orphan: Orphan) -> None:
        if orphan.kind == _CONTAINER:
            await self._objects.remove_docker(orphan.name)
        elif self._network is not None:
            await self._network.delete(Attachment(id=orphan.name, netns=""))

    def _expected(self, listed: Json) -> bool:
        return _id(listed) in self._objects.expected


def _id(listed: Json) -> str:
    return str((listed.get("Labels") or {}).get(labels.ID, ""))


def _is_lookup(listed: Json) -> bool:
    return bool((listed.get("Labels") or {}).get(labels.TYPE) == labels.LOOKUP)
