"""Programs that have ended before their start has returned."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from tests.oci.bench import opened

pytestmark = pytest.mark.root


async def test_nothing_is_taken_away_from_a_start_that_has_not_returned(
    place: Config, busybox: Path, tmp_path: Path
) -> None:
    """runc opens the way for the program, then takes up what it has kept of it: an end that is told in
    between must not delete that, or the start fails although the program has run."""
    called = tmp_path / "called"
    program = tmp_path / "runc-slow"
    program.write_text(
        f"""#!/bin/sh
        case " $* " in
            *" start "*) runc "$@" && sleep 0.5 && echo started >> {called} ;;
            *" delete "*) echo delete >> {called}; exec runc "$@" ;;
            *) exec runc "$@" ;;
        esac
        """
    )
    program.chmod(0o755)
    config = msgspec.structs.replace(place, handlers={"crun": HandlerConfig(path=str(program))})
    async with opened(config, busybox) as bench:
        sandbox = await bench.sandbox()
        container = await bench.container(sandbox, "true")
        assert (await bench.exit_of(container)).code == 0
        await bench.remove(container)
    assert called.read_text().split() == ["started", "delete"]
