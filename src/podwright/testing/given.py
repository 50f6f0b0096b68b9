"""What a test hands to a node, in its own words: names of containers and pods, errors to be met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from podwright.cli import find
from podwright.core.views import HIDDEN_CONTAINER, HIDDEN_SANDBOX, container_state, sandbox_state
from podwright.engines.fake.faults import FaultError
from podwright.errors import InvalidArgument, PodwrightError

if TYPE_CHECKING:
    from podwright.core.records import Records


def known(records: Records) -> Iterator[find.Found]:
    """All that clients see, to choose from by name; also when the server is down."""
    for pod in records.sandboxes:
        if pod.state not in HIDDEN_SANDBOX:
            metadata = pod.config.metadata
            yield find.Found(
                kind="pod",
                id=pod.id,
                name=metadata.name,
                pod=metadata.name,
                namespace=metadata.namespace,
                created_at=pod.created_at,
                state=sandbox_state(pod),
            )
    for container in records.containers:
        if container.state not in HIDDEN_CONTAINER:
            metadata = container.sandbox.config.metadata
            yield find.Found(
                kind="container",
                id=container.id,
                name=container.config.metadata.name,
                pod=metadata.name,
                namespace=metadata.namespace,
                created_at=container.created_at,
                state=container_state(container),
                sandbox=container.sandbox.id,
            )


def fault_error(error: PodwrightError) -> FaultError:
    """What a scenario would say to get `error`; InvalidArgument when it could not."""
    name, message = type(error).__name__, str(error)
    if isinstance(error, InvalidArgument):
        return FaultError(code=name, message=message.removeprefix(f"{error.field}: "), field=error.field)
    try:
        # Those that name themselves in front of their message do it again.
        return FaultError(
            code="Unknown" if name == "PodwrightError" else name, message=message.removeprefix(f"{name}: ")
        )
    except ValueError as wrong:
        raise InvalidArgument("error", str(wrong)) from wrong
