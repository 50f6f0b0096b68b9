"""Windows: what holds for any request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import PodwrightError
from podwright.spec.encode import encode
from podwright.spec.inputs import HandlerOptions, ImageConfig
from podwright.spec.windows import paths
from podwright.spec.windows.inputs import WindowsHandler
from podwright.spec.windows.security import HOST_PROCESS
from podwright.wire import cri_pb2 as cri
from tests.spec.windows_pods import build, pod

PIPE = "\\\\.\\pipe\\"


PATH = st.one_of(
    st.sampled_from(["C:", "C:\\", "D:", "c:/x", "\\x", "x", f"{PIPE}p", "\\\\s\\h\\x", "..", ""]),
    st.text(alphabet="cCdD:\\/.?aé ", max_size=12),
)
NUMBER = st.integers(min_value=-(2**63), max_value=2**63 - 1)
MOUNT = st.builds(
    cri.Mount,
    container_path=PATH,
    host_path=PATH,
    readonly=st.booleans(),
    image=st.none() | st.just(cri.ImageSpec(image="i:1")),
)
RESOURCES = st.builds(
    cri.WindowsContainerResources,
    cpu_shares=NUMBER | st.integers(0, 10_000),
    cpu_count=st.integers(0, 64),
    cpu_maximum=st.integers(0, 10_001),
    memory_limit_in_bytes=st.integers(0, 2**63 - 1),
    affinity_cpus=st.lists(
        st.builds(
            cri.WindowsCpuGroupAffinity,
            cpu_mask=st.integers(0, 2**64 - 1),
            cpu_group=st.integers(0, 2**32 - 1),
        ),
        max_size=2,
    ),
)
CONFIG = st.builds(
    cri.ContainerConfig,
    command=st.lists(st.text(max_size=5), max_size=2),
    args=st.lists(st.text(max_size=5), max_size=2),
    working_dir=PATH,
    envs=st.lists(st.builds(cri.KeyValue, key=st.text(max_size=3), value=st.binary(max_size=3)), max_size=3),
    mounts=st.lists(MOUNT, max_size=3),
    devices=st.lists(
        st.builds(cri.Device, host_path=st.sampled_from(["class/x", "a://b", "x", ""])), max_size=2
    ),
    annotations=st.dictionaries(st.sampled_from([HOST_PROCESS, "a", "cdi.k8s.io/x"]), st.text(max_size=4)),
    windows=st.none()
    | st.builds(
        cri.WindowsContainerConfig,
        resources=st.none() | RESOURCES,
        security_context=st.builds(
            cri.WindowsContainerSecurityContext,
            run_as_username=st.text(max_size=5),
            credential_spec=st.text(max_size=5) | st.just("[" * 5000),
            host_process=st.booleans(),
        ),
    ),
)
IMAGE = st.builds(
    ImageConfig,
    entrypoint=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    cmd=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    env=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    user=st.text(max_size=5),
    volumes=st.lists(PATH, max_size=2).map(tuple),
    args_escaped=st.booleans(),
)


@given(CONFIG, IMAGE, st.booleans(), st.booleans())
def test_any_request_gives_a_valid_spec_or_a_named_error(
    config: cri.ContainerConfig, image: ImageConfig, host_process: bool, hyperv: bool
) -> None:
    values: dict[str, Any] = {
        "image": image,
        "sandbox": pod(host_process=host_process),
        "windows": WindowsHandler(hyperv=hyperv),
        "volumes": dict.fromkeys(image.volumes, "C:\\volumes\\v"),
        "handler": HandlerOptions(pod_annotations=["*", "*/*"], container_annotations=["*", "*/*"]),
    }
    try:
        built = build(config, **values)
    except PodwrightError as refusal:
        assert str(refusal)
        with pytest.raises(type(refusal)) as again:
            build(config, **values)
        assert str(again.value) == str(refusal)
        return
    assert encode(built.spec) == encode(build(config, **values).spec)
    asked = config.windows.security_context.host_process
    assert built.spec["annotations"][HOST_PROCESS] == str(asked).lower()
    assert asked == host_process
    given_paths = {paths.clean(mount.host_path) for mount in config.mounts} | {
        mount.host_path for mount in config.mounts
    }
    for mount in built.spec["mounts"]:
        assert mount["source"] in given_paths | {"C:\\volumes\\v"}


@given(PATH)
def test_a_cleaned_path_stays_as_it_is(path: str) -> None:
    assert paths.clean(paths.clean(path)) == paths.clean(path)
