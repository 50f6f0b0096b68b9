"""What the node tells of itself: Status and RuntimeConfig."""

from __future__ import annotations

import msgspec

from podwright.config import Config
from podwright.core.words import json_texts
from podwright.engines.base import EngineStatus, Handler
from podwright.wire import cri_pb2 as cri


def status(engine: EngineStatus, verbose: bool, config: Config) -> cri.StatusResponse:
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
        features=cri.RuntimeFeatures(supplemental_groups_policy=True),
    )
    if verbose:
        reasons = {
            handler.name: {"available": handler.available, "reason": handler.reason}
            for handler in engine.handlers
        }
        response.info.update(
            json_texts({"config": msgspec.to_builtins(config), "handlers": reasons, **engine.info})
        )
    return response


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
