"""The rules of a site: name this file in the configuration, and every pod on the node obeys them.

    # /etc/podwright/config.toml
    hooks = ["/etc/podwright/hooks/site.py"]

`podwright explain pod.yaml` shows what these functions changed, each with its name.
"""

import logging

from podwright import hooks
from podwright.wire import cri_pb2 as cri

log = logging.getLogger("site")


@hooks.validate("CreateContainer", order=10)
def no_moving_images(request: cri.CreateContainerRequest) -> None:
    """Refuse an image whose name may mean another one tomorrow."""
    name = request.config.image.user_specified_image or request.config.image.image
    if name.endswith(":latest"):
        raise hooks.Rejected("config.image.image", f"{name} is not pinned: name a version or a digest")


@hooks.adjust(order=20)
def debuggers_die_first(spec: dict, target: hooks.Target) -> None:
    """Containers labelled as tools are the first to be killed when memory runs out."""
    if target.container is not None and target.container.labels.get("site/role") == "tool":
        spec["process"]["oomScoreAdj"] = 1000
        spec["annotations"]["site/adjusted"] = "oomScoreAdj"


@hooks.watch("CONTAINER_STOPPED_EVENT")
async def tell_of_failures(event: cri.ContainerEventResponse) -> None:
    """Log what ended badly."""
    for status in event.containers_statuses:
        if status.id == event.container_id and status.exit_code:
            log.warning("%s ended with %d (%s)", status.metadata.name, status.exit_code, status.reason)
