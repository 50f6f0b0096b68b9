"""What the fake engine's steps are called for people and spans: like those of a real engine."""

from __future__ import annotations

from collections.abc import Mapping

STAGES: Mapping[str, str] = {
    "create_sandbox.namespaces": "namespaces",
    "create_sandbox.network": "cni add",
    "create_sandbox.pause": "pause",
    "create_sandbox.ready": "ready",
    "undo_sandbox.network": "cni del",
    "undo_sandbox.namespaces": "unmount",
    "stop_sandbox.network": "cni del",
    "stop_sandbox.namespaces": "unmount",
    "remove_sandbox.files": "remove files",
    "create_container.rootfs": "rootfs",
    "create_container.restore": "checkpoint",
    "create_container.task": "runtime create",
    "undo_container.rootfs": "unmount",
    "start_container.start": "runtime start",
    "start_container.started": "runtime start",
    "signal_container.signal": "signal",
    "remove_container.task": "end task",
    "remove_container.rootfs": "remove files",
    "update_container.limits": "update limits",
    "checkpoint_container.dump": "dump",
    "checkpoint_container.archive": "archive",
    "exec_sync.exec": "exec",
    "exec.start": "exec",
    "attach.attach": "attach",
    "port_forward.connect": "forward",
    "reopen_log.reopen": "reopen log",
    "pull_image.resolve": "resolve",
    "pull_image.record": "record image",
    "remove_image.names": "remove image",
    "sandbox_alive.look": "look",
    "observe_container.look": "look",
    "forget_others.network": "release networks",
}
"""By the names that faults have for them (`faults.STEPS`)."""
