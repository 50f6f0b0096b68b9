"""Why no server answers, where one has been: that says more than what the next engine would want."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwright.cli.door import Door


def words(door: Door) -> str:
    """What has become of the server of `door` and how it is started; "" when nothing is left of one."""
    from podwright.house import engine_of_pods
    from podwright.server.endpoint import beside, knock, socket_path

    config = door.config()
    path = socket_path(config.listen)
    control = knock(beside(path))
    if control is None:
        return (
            f"the server of this fake node is down: `{_command(door)} fake restart` starts it,"
            f" `{_command(door)} fake state` tells more"
        )
    starts = f"`{_command(door)} serve --engine fake` starts it"
    if isinstance(control, ConnectionRefusedError):
        return f"the server of this fake node has been killed: {starts} again"
    if config.engine == "fake":
        return ""
    if engine_of_pods(config) == "fake":
        return f"the pods in {config.root} are a fake node's, whose server is down: {starts}"
    if os.geteuid() != 0 and isinstance(knock(path), ConnectionRefusedError):
        return "nobody listens there any more; `podwright serve` starts a server"
    return ""


def _command(door: Door) -> str:
    """`podwright` with the options that lead there."""
    options = {"config": door.config_file, "root": door.root, "run": door.run, "socket": door.socket}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return shlex.join(["podwright", *given])
