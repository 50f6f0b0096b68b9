"""How long an exec waits for output after its program's end, while somebody else still holds that."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from podwright.engines.docker import exec
from podwright.engines.docker.api import Docker
from podwright.engines.streams import Kept, Streams
from tests.oci.clients import PATIENCE


class Held:
    """A connection that says one thing and never ends, as with a daemonised child; and the Docker Engine to
    it, which knows that the program has ended."""

    def __init__(self) -> None:
        self._frames = [(2, b"said\n")]

    async def call(self, method: str, path: str, **_: Any) -> Any:
        return {"Id": "e"} if method == "POST" else {"Running": False, "Pid": 1 << 22, "ExitCode": 3}

    async def hijack(self, *_: Any, **__: Any) -> Held:
        return self

    async def read_frame(self) -> tuple[int, bytes]:
        if not self._frames:
            await asyncio.Event().wait()
        return self._frames.pop()

    def close(self) -> None: ...


@pytest.mark.parametrize(("patient", "grace"), [(False, 600.0), (True, 0.5)])
async def test_who_holds_the_output_is_waited_for_by_the_patient_only(
    patient: bool, grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec, "GRACE", grace)
    out, errors = Kept(100), Kept(100)
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(PATIENCE):
        code = await exec.run(
            cast(Docker, Held()),
            "c",
            ["true"],
            Streams(stdout=out, stderr=errors),
            detach_keys="",
            patient=patient,
        )
    assert (code, bytes(out.data), bytes(errors.data)) == (3, b"", b"said\n")
    if patient:
        assert asyncio.get_running_loop().time() - began >= grace
