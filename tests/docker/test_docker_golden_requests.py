"""Create requests field by field: what a CRI server of the dockershim kind asked of Docker, and what
podwright asks. What differs is in docker_differences.toml, with a reason, and nothing else does."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from podwright.engines.docker import security
from podwright.engines.docker.container_config import Found
from podwright.engines.docker.container_config import create_request as container_request
from podwright.engines.docker.labels import container_name, sandbox_name
from podwright.engines.docker.sandbox_config import create_request as sandbox_request
from podwright.errors import PodwrightError
from podwright.spec.inputs import RootfsFiles
from tests.docker import golden

_CREATED = [name for name in golden.names("create-*", "run-pod-*") if golden.creation(name) is not None]
_REFUSED = [
    name
    for name in golden.names("create-*", "run-pod-*")
    if golden.creation(name) is None and name != "create-sandbox-missing"
]


def _ours(name: str) -> tuple[str, str, dict[str, Any]]:
    """The kind, Docker's name for it, and the request."""
    if name.startswith("run-pod-"):
        sandbox = golden.sandbox_of(name)
        asked = sandbox.config.linux.security_context
        path = security.profile_path(asked, golden.FEATURES, sandbox.config.annotations)
        body = sandbox_request(sandbox, golden.FEATURES, golden.OWNER, profile=golden.profile(path))
        return "sandbox", sandbox_name(sandbox.config), body
    container = golden.container_of(name)
    config = container.config
    path = security.profile_path(
        config.linux.security_context,
        golden.FEATURES,
        container.sandbox.config.annotations,
        config.metadata.name,
    )
    found = Found(
        sandbox="${SANDBOX_ID}",
        target=config.linux.security_context.namespace_options.target_id,
        users=RootfsFiles(golden.PASSWD, golden.GROUP),
        profile=golden.profile(path),
    )
    body = container_request(container, golden.FEATURES, golden.OWNER, found)
    return "container", container_name(container.sandbox.config, config), body


def _allowed(name: str) -> dict[str, dict[str, Any]]:
    """The entries of the table that count for a case, by place."""
    return {
        path: entry
        for entry in golden.table()["requests"]
        if entry["cases"] == ["*"] or name in entry["cases"]
        for path in entry["paths"]
    }


@pytest.mark.parametrize(
    "name", [each for each in _CREATED if each not in golden.table()["refused"][0]["cases"]]
)
def test_a_request_is_the_recorded_one_but_for_what_the_table_names(name: str) -> None:
    exchange = golden.creation(name)
    assert exchange is not None
    kind, container, body = _ours(name)
    assert exchange["path"].partition("?name=")[2] == container
    ours = golden.members(kind, golden.pruned(body))
    recorded = golden.members(kind, exchange["body"])
    different = golden.differing(ours, recorded)
    allowed = _allowed(name)
    shown = {path: (recorded.get(path), ours.get(path)) for path in different - allowed.keys()}
    assert not shown, "recorded, ours"
    for path in different:
        if "ours" in allowed[path]:
            assert ours.get(path) == allowed[path]["ours"], path
        if "left_out" in allowed[path]:
            assert (ours.get(path), recorded[path]) == (None, allowed[path]["left_out"]), path


def test_every_row_of_the_table_is_seen() -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for name in _CREATED:
        if name in golden.table()["refused"][0]["cases"]:
            continue
        kind, _, body = _ours(name)
        exchange = golden.creation(name)
        assert exchange is not None
        ours, recorded = golden.members(kind, golden.pruned(body)), golden.members(kind, exchange["body"])
        for path in golden.differing(ours, recorded):
            seen[path].add(name)
    for entry in golden.table()["requests"]:
        for path in entry["paths"]:
            assert seen[path], path
            if entry["cases"] != ["*"]:
                assert set(entry["cases"]) <= seen[path], path


@pytest.mark.parametrize("name", [*_REFUSED, *golden.table()["refused"][0]["cases"]])
def test_what_was_refused_is_refused(name: str) -> None:
    with pytest.raises(PodwrightError):
        _ours(name)


def test_podwrights_labels_find_an_object_from_its_id_and_hide() -> None:
    from podwright.engines.docker import labels

    _, _, body = _ours("run-pod-labels")
    assert body["Labels"][labels.ID] == "s" * 64
    assert body["Labels"][labels.OWNER] == golden.OWNER
    # What the image brings stays among them: nobody can tell its labels from the pod's.
    shown, annotations = labels.outer(body["Labels"])
    config = golden.sandbox_of("run-pod-labels").config
    assert (shown, annotations) == (dict(config.labels), dict(config.annotations))
