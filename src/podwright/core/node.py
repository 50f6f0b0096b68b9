"""What the node tells of itself: Status and RuntimeConfig."""

from __future__ import annotations

import msgspec

from podwright.config import Config
from podwright.core.words import json_texts
from podwright.engines.base import EngineStatus, Handler, Json
from podwright.wire import cri_pb2 as cri

CORES_OWN = ("engine", "root", "run", "hooks", "create_timeout", "streaming")
"""Keys of the configuration that hold with every engine."""


def status(engine: EngineStatus, verbose: bool, config: Config, pod_cidr: str = "") -> cri.StatusResponse:
    """Both conditions are always there; a handler that cannot work is left out of the list the scheduler
    reads, and named with its reason in the verbose info."""
    handlers = {handler.name: handler for handler in engine.handlers}
    usable = [handler for handler in engine.handlers if handler.available]
    default = handlers.get(engine.default_handler)
    if default is not None and default.available:
        usable.insert(0, Handler("", True, "", default.recursive_read_only, default.user_namespaces))
    response = cri.StatusResponse(
        status=cri.RuntimeStatus(
            conditions=[
                _condition("RuntimeReady", engine.runtime_error, "RuntimeNotReady", ""),
                _condition(
                    "NetworkReady",
                    engine.network_error,
                    "NetworkPluginNotReady",
                    "Network plugin returns error: ",
                ),
            ]
        ),
        runtime_handlers=[
            cri.RuntimeHandler(
                name=handler.name,
                features=cri.RuntimeHandlerFeatures(
                    recursive_read_only_mounts=handler.recursive_read_only,
                    user_namespaces=handler.user_namespaces,
                ),
            )
            for handler in usable
        ],
        features=cri.RuntimeFeatures(
            supplemental_groups_policy=True,
            user_namespaces_host_network=any(handler.user_namespaces for handler in usable),
        ),
    )
    if verbose:
        reasons = {
            handler.name: {"available": handler.available, "reason": handler.reason}
            for handler in engine.handlers
        }
        response.info.update(
            json_texts(
                {
                    "config": _config(config, engine),
                    "handlers": reasons,
                    "lastCNILoadStatus": engine.network_error or "OK",
                    **({"podCIDR": pod_cidr} if pod_cidr else {}),
                    **engine.info,
                }
            )
        )
    return response


def _config(config: Config, engine: EngineStatus) -> dict[str, Json]:
    """The configuration that holds: of the house's only what core itself goes by, where the engine has its
    own."""
    told: dict[str, Json] = msgspec.to_builtins(config)
    if engine.config is None:
        return told
    return {name: told[name] for name in CORES_OWN} | dict(engine.config)


def runtime_config(driver: str) -> cri.RuntimeConfigResponse:
    return cri.RuntimeConfigResponse(
        linux=cri.LinuxRuntimeConfiguration(
            cgroup_driver=cri.SYSTEMD if driver == "systemd" else cri.CGROUPFS
        )
    )


def _condition(type: str, error: str, reason: str, prefix: str) -> cri.RuntimeCondition:
    if not error:
        return cri.RuntimeCondition(type=type, status=True)
    return cri.RuntimeCondition(type=type, status=False, reason=reason, message=prefix + error)
