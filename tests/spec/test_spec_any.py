"""What holds for any request at all: it ends in a valid spec or in an error of ours, always the same, and
gives no right that nobody asked for."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from podwright.errors import PodwrightError
from podwright.spec import allowed, cdi
from podwright.spec.encode import encode
from podwright.spec.inputs import ContainerInput, HostFacts, NamespacePaths, SandboxInput
from podwright.spec.linux.build import build_container, build_sandbox
from podwright.spec.linux.capabilities import DEFAULT, normalise
from podwright.wire import cri_pb2 as cri
from tests.spec import oci_rules
from tests.spec.linux_requests import HANDLERS, HOSTS, PODS, look_up, requests

SLOW = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
RUNTIMES_OWN = {"/dev/null", "/dev/fuse", "/dev/dir/a"}


def built(request: ContainerInput, host: HostFacts) -> Any:
    """The spec, or the error's words."""
    try:
        look_up(request, host)
        return build_container(request, host).spec
    except PodwrightError as refusal:
        return f"{type(refusal).__name__}: {refusal}"


@given(requests())
@SLOW
def test_a_request_ends_in_a_valid_spec_or_in_an_error_of_ours(
    case: tuple[ContainerInput, HostFacts],
) -> None:
    first, again = built(*case), built(*case)
    assert first == again
    if isinstance(first, str):
        event(f"refused: {first[:60]}")
        assert first.partition(": ")[2]
    else:
        event("built")
        assert oci_rules.problems(first) == []
        assert encode(first) == encode(again)


@given(requests())
@SLOW
def test_every_value_has_an_origin(case: tuple[ContainerInput, HostFacts]) -> None:
    try:
        found = build_container(*case, explain=True)
    except PodwrightError:
        return
    assert list(_unexplained(found.spec, found.origins)) == []
    words = {"request", "image", "default", "host", "node", "handler", "cdi", "hook", "rule"}
    assert {origin.partition(": ")[0] for origin in found.origins.values()} <= words
    assert found.spec == build_container(*case).spec


def _unexplained(spec: Any, origins: Any) -> Iterator[str]:
    for section in ("process", "linux", "hooks", "root"):
        for member, value in spec.get(section, {}).items():
            if value in ({}, []) or member in ("resources", "devices"):
                continue
            if f"{section}.{member}" not in origins:
                yield f"{section}.{member}"
    for member, value in spec["linux"]["resources"].items():
        if value and f"linux.resources.{member}" not in origins:
            yield f"linux.resources.{member}"
    for mount in spec["mounts"]:
        if f"mounts[{mount['destination']}]" not in origins:
            yield f"mounts[{mount['destination']}]"
    for node in spec["linux"].get("devices", ()):
        if f"linux.devices[{node['path']}]" not in origins and "linux.devices" not in origins:
            yield f"linux.devices[{node['path']}]"


@given(requests())
@SLOW
def test_an_unprivileged_container_has_no_right_that_nobody_asked_for(
    case: tuple[ContainerInput, HostFacts],
) -> None:
    request, host = case
    request.config.linux.security_context.privileged = False
    spec = built(request, host)
    if isinstance(spec, str):
        return
    assert _capabilities(spec) <= {*DEFAULT, *_asked_capabilities(request.config, host)}
    assert {node["path"] for node in spec["linux"].get("devices", ())} <= set(_asked_devices(request))
    rules = spec["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert all("major" in rule and "minor" in rule for rule in rules[1:])
    asked = {mount.host_path for mount in request.config.mounts} | {"/volume"}
    if cdi.requested(request.config):
        asked.add("/cdi")
    for mount in spec["mounts"]:
        bound = mount.get("type") == "bind" or "rbind" in mount.get("options", ())
        if bound and not mount["source"].startswith("/s/") and mount["source"] not in asked:
            # The host's own: /dev/shm with host IPC, /sys and the time zone read-only.
            host_ipc = request.security.namespace_options.ipc == cri.NamespaceMode.NODE
            assert {"ro", "rro"} & set(mount["options"]) or (mount["source"] == "/dev/shm" and host_ipc)
        if mount.get("type") == "cgroup" and "rw" in mount["options"]:
            assert host.cgroup_version == 2


def _capabilities(spec: Any) -> set[str]:
    return {name for given in spec["process"]["capabilities"].values() for name in given}


def _asked_capabilities(config: cri.ContainerConfig, host: HostFacts) -> set[str]:
    asked = config.linux.security_context.capabilities
    names = {normalise(name) for name in (*asked.add_capabilities, *asked.add_ambient_capabilities)}
    return {*host.capabilities} if "ALL" in names else names


def _asked_devices(request: ContainerInput) -> Iterator[str]:
    for device in request.config.devices:
        for node in request.devices.get(device.host_path, ()):
            yield (device.container_path or device.host_path) + node.path[len(device.host_path) :]
    if cdi.requested(request.config):
        yield "/dev/cdi"
    if allowed.of_container(request, allowed.DEVICES):
        yield "/dev/fuse"


@given(PODS, HOSTS, HANDLERS, st.sampled_from([None, b"{", b'{"defaultAction": "SCMP_ACT_LOG"}']))
@SLOW
def test_a_pause_process_is_valid_and_has_no_rights(
    config: cri.PodSandboxConfig, host: HostFacts, handler: Any, profile: bytes | None
) -> None:
    request = SandboxInput(
        id="s",
        config=config,
        cgroups_path="/p",
        rootfs_path="/r",
        namespaces=NamespacePaths(net="/n", ipc="/i", uts="/u", user="/pins/user"),
        handler=handler,
        seccomp_profile=profile,
        selinux_level="s0:c1,c2",
    )
    try:
        spec = build_sandbox(request, host).spec
    except PodwrightError:
        return
    assert oci_rules.problems(spec) == []
    assert not _capabilities(spec)
    assert "devices" not in spec["linux"]
    assert {posixpath.normpath(mount["destination"]) for mount in spec["mounts"]} == {"/proc", "/dev"}
