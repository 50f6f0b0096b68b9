"""status and version: how the node is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from podwright import __version__
from podwright.cli.output import Format, json, plain, table
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.cli.door import Door


async def status(door: Door, output: Format) -> bool:
    """Print the conditions and the handlers; False when a condition does not hold."""
    address = door.answering()
    async with door.cri() as runtime:
        answer = await runtime.status(cri.StatusRequest(verbose=True))
        version = await runtime.version(cri.VersionRequest())
    if output is Format.JSON:
        json(plain(answer))
    else:
        print(f"{version.runtime_name} {version.runtime_version}, {_where(address)}\n")
        table(
            ("CONDITION", "STATE", "REASON"),
            [
                (
                    one.type,
                    "yes" if one.status else "no",
                    ": ".join(filter(None, (one.reason, one.message))) or "-",
                )
                for one in answer.status.conditions
            ],
        )
        print()
        features = {handler.name: _features(handler) for handler in answer.runtime_handlers}
        table(
            ("HANDLER", "STATE", "NOTE"),
            [
                (name or "(default)", "no" if reason else "yes", reason or features.get(name, "-"))
                for name, reason in handlers_of(answer).items()
            ],
        )
    return all(condition.status for condition in answer.status.conditions)


async def version(door: Door, output: Format) -> None:
    """Print this program's version, and the server's when one answers."""
    address = door.answering()
    if address is None:
        if output is Format.JSON:
            json({"version": __version__, "python": sys.version.split()[0]})
        else:
            print(f"podwright {__version__} (Python {sys.version.split()[0]})")
        return
    async with door.cri() as runtime:
        answer = await runtime.version(cri.VersionRequest())
    if output is Format.JSON:
        json({"version": __version__, "python": sys.version.split()[0], "server": plain(answer)})
        return
    print(f"podwright {__version__} (Python {sys.version.split()[0]})")
    print(f"{answer.runtime_name} {answer.runtime_version}, CRI {answer.runtime_api_version}, at {address}")


def handlers_of(answer: cri.StatusResponse) -> dict[str, str]:
    """Each handler with the reason why it cannot work, "" when it can: those that can are in the status,
    podwright names the others in the verbose info."""
    import msgspec

    found = {handler.name: "" for handler in answer.runtime_handlers}
    told = answer.info.get("handlers")
    for name, state in (msgspec.json.decode(told) if told else {}).items():
        if not state["available"]:
            found[name] = state["reason"]
    return found


def _where(address: str | None) -> str:
    return f"at {address}" if address else "no server: this machine's state itself"


def _features(handler: cri.RuntimeHandler) -> str:
    features = handler.features
    words = []
    if features.recursive_read_only_mounts:
        words.append("recursive read-only mounts")
    if features.user_namespaces:
        words.append("user namespaces")
    return ", ".join(words) or "-"
