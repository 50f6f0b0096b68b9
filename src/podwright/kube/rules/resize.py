"""Whether a running container's resources are no longer those of its manifest, and what that takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from podwright.kube.models import Container, ResourceRequirements
from podwright.kube.requests.resources import parse_quantity

RESIZABLE = ("memory", "cpu")
"""In the order in which they are changed."""


@dataclass(frozen=True, slots=True)
class Change:
    resources: tuple[str, ...] = ()
    """What differs, of RESIZABLE."""
    restart: bool = False
    """The container's resizePolicy wants it to be stopped and made again for one of them."""


def change(container: Container, actuated: ResourceRequirements | None) -> Change:
    """From `actuated`, what the container was made with or last changed to, to what its manifest says. None:
    nobody knows what it was made with, and it is left alone."""
    if actuated is None:
        return Change()
    wanted = container.resources or ResourceRequirements()
    differ = tuple(name for name in RESIZABLE if _amounts(wanted, name) != _amounts(actuated, name))
    policies = {one.resourceName: one.restartPolicy for one in container.resizePolicy or []}
    return Change(differ, any(policies.get(name) == "RestartContainer" for name in differ))


def _amounts(resources: ResourceRequirements, name: str) -> list[Fraction | None]:
    sides = (resources.requests or {}, resources.limits or {})
    return [parse_quantity(side[name]) if name in side else None for side in sides]
