"""Hooks of the hooks directories, for the containers they are meant for."""

from __future__ import annotations

from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts


def hooks(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Conditions on annotations see those of the pod and of the container, and what the spec itself has."""
    if not host.hooks:
        return
    annotations = {**request.sandbox.annotations, **request.config.annotations, **draft.annotations}
    for hook in host.hooks:
        if hook.matches(draft.process["args"][0], annotations, bool(request.config.mounts)):
            for stage in hook.stages:
                draft.hooks.setdefault(stage, []).append(dict(hook.entry))
                draft.note(f"hooks.{stage}", f"hook: {hook.path}")
