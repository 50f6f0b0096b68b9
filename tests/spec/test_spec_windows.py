"""Windows: what runs, how it is isolated, the pause container, stop signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.base_spec import BaseSpec
from podwright.spec.build import build_container
from podwright.spec.inputs import HandlerOptions, ImageConfig, NamespacePaths
from podwright.spec.platforms import Platform, host_network
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsHandler
from podwright.spec.windows.process import escape
from podwright.spec.windows.security import HOST_PROCESS
from podwright.spec.windows.signals import windows_stop_signal
from podwright.wire import cri_pb2 as cri
from tests.spec.windows_pods import HOST, LAYERS, build, build_pod, container, pod

Signal = cri.Signal


# What runs


@pytest.mark.parametrize(
    ("command", "arguments", "entrypoint", "cmd", "args"),
    [
        (["x"], [], ["e"], ["c"], ["x"]),
        (["x"], ["y"], ["e"], ["c"], ["x", "y"]),
        ([], ["y"], ["e"], ["c"], ["e", "y"]),
        ([], ["y"], [], ["c"], ["y"]),
        ([], [], ["e"], ["c"], ["e", "c"]),
        ([], [], [], ["c"], ["c"]),
        # Only Linux takes ENTRYPOINT [""] for none.
        ([], [], [""], ["c"], ["", "c"]),
    ],
)
def test_args(
    command: list[str], arguments: list[str], entrypoint: list[str], cmd: list[str], args: list[str]
) -> None:
    image = ImageConfig(entrypoint=tuple(entrypoint), cmd=tuple(cmd))
    process = build(cri.ContainerConfig(command=command, args=arguments), image=image).spec["process"]
    assert process["args"] == args
    assert "commandLine" not in process


@pytest.mark.parametrize(
    ("command", "arguments", "entrypoint", "cmd", "line"),
    [
        # The image's first word is a command line already, the others are words.
        ([], [], ['run "a b"', "c d"], ["e f"], 'run "a b" "c d" "e f"'),
        ([], [], [], ['run "a b"', "c d"], 'run "a b" "c d"'),
        ([], ["x y"], ['run "a b"'], ["gone"], 'run "a b" "x y"'),
        # A first word of the request is a word.
        ([], ['p "q"', "r"], [], ["gone"], '"p \\"q\\"" r'),
        (["c:\\x y\\"], [], ["e"], ["gone"], '"c:\\x y\\\\"'),
        ([], [], ["e.exe"], [""], 'e.exe ""'),
    ],
)
def test_args_escaped_becomes_one_command_line(
    command: list[str], arguments: list[str], entrypoint: list[str], cmd: list[str], line: str
) -> None:
    image = ImageConfig(entrypoint=tuple(entrypoint), cmd=tuple(cmd), args_escaped=True)
    process = build(cri.ContainerConfig(command=command, args=arguments), image=image).spec["process"]
    assert process["commandLine"] == line
    assert "args" not in process


@given(st.lists(st.text(alphabet='a\\" \t', max_size=8), min_size=1, max_size=4))
def test_escaped_words_are_read_back_by_the_rules_of_the_c_runtime(words: list[str]) -> None:
    assert read_command_line(" ".join(map(escape, words))) == words


def read_command_line(line: str) -> list[str]:
    """The words that a Windows program gets (Microsoft C, "Parsing C command-line arguments")."""
    words: list[str] = []
    place, size = 0, len(line)
    while place < size:
        while place < size and line[place] in " \t":
            place += 1
        word, quoted = "", False
        while place < size and (quoted or line[place] not in " \t"):
            slashes = 0
            while place < size and line[place] == "\\":
                slashes += 1
                place += 1
            if place < size and line[place] == '"':
                word += "\\" * (slashes // 2)
                if slashes % 2:
                    word += '"'
                else:
                    quoted = not quoted
                place += 1
                continue
            word += "\\" * slashes
            if place < size and not slashes:
                word += line[place]
                place += 1
        words.append(word)
    return words


@pytest.mark.parametrize("escaped", [False, True])
def test_nothing_to_run_is_refused(escaped: bool) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.command.*no command"):
        build(cri.ContainerConfig(), image=ImageConfig(args_escaped=escaped))


@pytest.mark.parametrize(
    ("asked", "image", "host_process", "cwd"),
    [
        ("D:\\x", "C:\\i", True, "D:\\x"),
        ("", "C:\\i", True, "C:\\i"),
        ("", "", True, "C:\\hpc"),
        ("", "", False, "C:\\"),
        ("", "/app", False, "/app"),
        ("", "app", False, "C:\\app"),
    ],
)
def test_cwd(asked: str, image: str, host_process: bool, cwd: str) -> None:
    config = container(host_process=host_process)
    config.working_dir = asked
    built = build(config, image=ImageConfig(working_dir=image), sandbox=pod(host_process=host_process))
    assert built.spec["process"]["cwd"] == cwd


def test_env_is_the_images_then_the_requests_and_nothing_else() -> None:
    config = container()
    config.tty = True
    config.envs.extend([cri.KeyValue(key="PATH", value=b"C:\\y"), cri.KeyValue(key="A", value=b"2")])
    built = build(config, image=ImageConfig(env=("Path=C:\\x", "A=1", "GONE")))
    assert built.spec["process"]["env"] == ["Path=C:\\x", "A=1", "PATH=C:\\y", "A=2"]
    assert built.spec["process"]["terminal"] is True
    assert built.origins["process.env[A]"] == "request: config.envs[A]"


def test_env_that_is_no_text_is_refused() -> None:
    config = container()
    config.envs.append(cri.KeyValue(key="A", value=b"\xff"))
    with pytest.raises(InvalidArgument, match=r"config\.envs\[A\]"):
        build(config)


@pytest.mark.parametrize(
    ("asked", "image", "name"),
    [
        ("NT AUTHORITY\\SYSTEM", "ContainerUser", "NT AUTHORITY\\SYSTEM"),
        ("", "ContainerUser", "ContainerUser"),
        ("", "", None),
    ],
)
def test_user_is_a_name(asked: str, image: str, name: str | None) -> None:
    built = build(container(run_as_username=asked), image=ImageConfig(user=image))
    assert built.spec["process"]["user"].get("username") == name


@pytest.mark.parametrize("user", ["1000", "-1", "app:app", "0:0"])
def test_ids_and_groups_are_no_users(user: str) -> None:
    with pytest.raises(InvalidArgument, match=r"image User"):
        build(container(), image=ImageConfig(user=user))
    with pytest.raises(InvalidArgument, match=r"run_as_username"):
        build(container(run_as_username=user))


# Isolation


def test_there_is_no_rootfs_but_layers() -> None:
    spec = build(container()).spec
    assert "root" not in spec
    assert "linux" not in spec
    assert spec["windows"]["layerFolders"] == list(LAYERS)
    assert "hyperv" not in spec["windows"]


@pytest.mark.parametrize("folders", [(), ("layers\\one",), ("C:one",)])
def test_layers_that_the_oci_does_not_allow(folders: tuple[str, ...]) -> None:
    with pytest.raises(FailedPrecondition, match="layerFolders"):
        build(container(), layer_folders=folders)


def test_without_layer_folders_the_shim_fills_them_in() -> None:
    request = WindowsContainerInput(
        id="c", config=container(), sandbox_id="s", sandbox=pod(), image=ImageConfig()
    )
    assert build_container("windows", request, HOST).spec["windows"]["layerFolders"] is None


@pytest.mark.parametrize(
    ("handler", "hyperv"),
    [
        (WindowsHandler(hyperv=True), {}),
        (WindowsHandler(hyperv=True, utility_vm="C:\\uvm"), {"utilityVMPath": "C:\\uvm"}),
    ],
)
def test_hyperv_isolation_is_the_handlers(handler: WindowsHandler, hyperv: dict[str, str]) -> None:
    assert build(container(), windows=handler).spec["windows"]["hyperv"] == hyperv
    assert build_pod(pod(), windows=handler).spec["windows"]["hyperv"] == hyperv


@pytest.mark.parametrize("asked", [False, True])
def test_host_process(asked: bool) -> None:
    built = build(container(host_process=asked), sandbox=pod(host_process=asked))
    assert built.spec["annotations"][HOST_PROCESS] == str(asked).lower()
    assert build_pod(pod(host_process=asked)).spec["annotations"][HOST_PROCESS] == str(asked).lower()


@pytest.mark.parametrize("asked", [False, True])
def test_a_pod_is_host_process_as_a_whole(asked: bool) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.windows\.security_context\.host_process"):
        build(container(host_process=asked), sandbox=pod(host_process=not asked))


def test_no_annotation_of_the_request_makes_a_host_process() -> None:
    config = container()
    config.annotations[HOST_PROCESS] = "true"
    sandbox = pod()
    sandbox.annotations[HOST_PROCESS] = "true"
    handler = HandlerOptions(pod_annotations=["microsoft.com/*"], container_annotations=["microsoft.com/*"])
    built = build(config, sandbox=sandbox, handler=handler)
    assert built.spec["annotations"][HOST_PROCESS] == "false"
    assert build_pod(sandbox, handler=handler).spec["annotations"][HOST_PROCESS] == "false"


def test_host_process_does_not_go_with_hyperv() -> None:
    with pytest.raises(FailedPrecondition, match="Hyper-V"):
        build(
            container(host_process=True),
            sandbox=pod(host_process=True),
            windows=WindowsHandler(hyperv=True),
        )
    with pytest.raises(FailedPrecondition, match="Hyper-V"):
        build_pod(pod(host_process=True), windows=WindowsHandler(hyperv=True))


def test_the_pods_hcn_namespace_and_hostname() -> None:
    sandbox = pod()
    sandbox.hostname = "win-pod"
    spec = build(container(), sandbox=sandbox).spec
    assert spec["windows"]["network"] == {"networkNamespace": "hcn"}
    assert spec["hostname"] == "win-pod"
    alone = build(container(), namespaces=NamespacePaths()).spec
    assert "network" not in alone["windows"]
    assert "hostname" not in alone
    assert build_pod(sandbox).spec["hostname"] == "win-pod"


def test_host_process_pods_are_in_the_hosts_network() -> None:
    windows = Platform.parse("windows/amd64")
    assert host_network(windows, pod(host_process=True))
    assert not host_network(windows, pod())


def test_credential_spec_is_passed_as_text() -> None:
    text = '{"CmsPlugins":["ActiveDirectory"]}'
    assert build(container(credential_spec=text)).spec["windows"]["credentialSpec"] == text
    assert build_pod(pod(credential_spec=text)).spec["windows"]["credentialSpec"] == text
    assert "credentialSpec" not in build(container()).spec["windows"]
    assert build(container(credential_spec=text)).warnings == ()
    warnings = build(container(credential_spec="secret, but no JSON")).warnings
    assert len(warnings) == 1
    assert "secret" not in warnings[0]


def test_annotations_pass_by_glob_and_fixed_ones_win() -> None:
    config = container()
    config.annotations.update({"ctr.example/a": "1", "other": "1", "io.kubernetes.cri.sandbox-id": "fake"})
    sandbox = pod()
    sandbox.annotations.update({"pod.example/a": "2", "pod.example/a/b": "2"})
    handler = HandlerOptions(
        pod_annotations=["pod.example/*"], container_annotations=["ctr.example/*", "io.kubernetes.cri.*"]
    )
    found = build(config, sandbox=sandbox, handler=handler).spec["annotations"]
    assert found["ctr.example/a"] == "1"
    assert found["pod.example/a"] == "2"
    assert "other" not in found
    assert "pod.example/a/b" not in found
    assert found["io.kubernetes.cri.sandbox-id"] == "s"
    assert found["io.kubernetes.cri.container-type"] == "container"


# The sandbox


def test_the_pause_container() -> None:
    sandbox = pod(run_as_username="PodUser")
    sandbox.annotations["pod.example/a"] = "2"
    image = ImageConfig(
        entrypoint=("cmd", "/c"), cmd=("pause",), env=("P=1",), working_dir="C:\\w", user="ImageUser"
    )
    built = build_pod(
        sandbox,
        image=image,
        image_name="pause:1",
        namespaces=NamespacePaths(net="hcn"),
        handler=HandlerOptions(pod_annotations=["pod.example/*"]),
    )
    process = built.spec["process"]
    assert process["args"] == ["cmd", "/c", "pause"]
    assert process["env"] == ["P=1"]
    assert process["cwd"] == "C:\\w"
    assert process["user"]["username"] == "PodUser"
    assert built.spec["windows"]["resources"] == {"cpu": {"shares": 2}}
    assert built.spec["windows"]["network"] == {"networkNamespace": "hcn"}
    annotations = built.spec["annotations"]
    assert annotations["io.kubernetes.cri.container-type"] == "sandbox"
    assert annotations["io.kubernetes.cri.podsandbox.image-name"] == "pause:1"
    assert annotations["pod.example/a"] == "2"
    assert build_pod(pod(), image=image).spec["process"]["user"]["username"] == "ImageUser"


def test_a_pause_image_without_a_program_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"pause:1"):
        build_pod(pod(), image=ImageConfig(), image_name="pause:1")


# Base spec, signals


def test_a_handlers_base_spec_is_what_the_request_comes_over() -> None:
    base = {
        "ociVersion": "1.1.0",
        "root": {"path": "gone"},
        "linux": {"cgroupsPath": "/gone"},
        "process": {"cwd": "C:\\base", "env": ["B=1", "A=0"]},
        "mounts": [{"destination": "C:\\kept", "source": "x"}, {"destination": "c:\\d", "source": "x"}],
        "annotations": {"base": "1"},
        "windows": {
            "servicing": True,
            "layerFolders": ["C:\\gone"],
            "resources": {"cpu": {"count": 4}, "memory": {"limit": 1}},
        },
    }
    config = container(cri.WindowsContainerResources(memory_limit_in_bytes=2))
    config.mounts.add(container_path="C:\\d", host_path="C:\\h")
    config.envs.add(key="A", value=b"1")
    handler = HandlerOptions(name="win", base_spec=BaseSpec("base.json", base))
    spec = build(config, handler=handler).spec
    assert spec["process"]["cwd"] == "C:\\base"
    assert spec["process"]["env"] == ["B=1", "A=1"]
    assert [mount["destination"] for mount in spec["mounts"]] == ["C:\\kept", "C:\\d"]
    assert spec["annotations"]["base"] == "1"
    assert spec["windows"]["servicing"] is True
    assert spec["windows"]["layerFolders"] == list(LAYERS)
    assert spec["windows"]["resources"] == {"cpu": {"count": 4}, "memory": {"limit": 2}}
    assert "root" not in spec
    assert "linux" not in spec


@pytest.mark.parametrize(
    ("requested", "image", "name"),
    [
        (Signal.RUNTIME_DEFAULT, "", "SIGTERM"),
        (Signal.RUNTIME_DEFAULT, "SIGKILL", "SIGKILL"),
        (Signal.RUNTIME_DEFAULT, "SIGQUIT", "SIGTERM"),
        (Signal.SIGKILL, "SIGTERM", "SIGKILL"),
        (Signal.SIGTERM, "", "SIGTERM"),
    ],
)
def test_stop_signal(requested: cri.Signal, image: str, name: str) -> None:
    assert windows_stop_signal(requested, image).name == name


@pytest.mark.parametrize(("requested", "image"), [(Signal.SIGUSR1, ""), (Signal.RUNTIME_DEFAULT, "nonsense")])
def test_stop_signals_that_are_refused(requested: cri.Signal, image: str) -> None:
    with pytest.raises(InvalidArgument):
        windows_stop_signal(requested, image)
