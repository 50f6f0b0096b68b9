"""podwright explain: every value has a reason, a change shows what it would change, and nothing is made."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podwright.cli import explain_table
from podwright.cli.explain_sources import CriSource, put, value_at
from podwright.cli.explain_words import apart, words
from podwright.cli.main import app
from podwright.engines.node import host
from podwright.errors import InvalidArgument, PodwrightError
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.build import build_container
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.places import origin, places
from podwright.testing import FakeNode
from tests.behaviour.user import open_user
from tests.spec import test_golden as golden
from tests.spec.golden_cases import load
from tests.testing import requests

HELLO = Path(__file__).parents[2] / "examples" / "hello.yaml"
GOLDEN = Path(__file__).parent / "explain_hello.txt"
PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")

Explain = Callable[..., Any]

FACTS = HostFacts(
    hostname="node",
    capabilities=tuple(sorted(KNOWN)),
    kernel=(6, 1),
    default_seccomp=SeccompProfile.parse(b'{"defaultAction": "SCMP_ACT_ALLOW"}', "of the test"),
)
"""A host that is the same everywhere."""


@pytest.fixture
def roots(tmp_path: Path) -> list[str]:
    return ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]


@pytest.fixture
def explain(roots: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    """Run the command in this process, on the host of FACTS; its exit status and output."""
    monkeypatch.setattr(host, "facts", lambda config: FACTS)

    def run(*arguments: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = app([*roots, *options, "explain", *arguments], standalone_mode=False)
        except SystemExit as left:
            status = left.code
        return int(status or 0), capsys.readouterr().out

    return run


def rows(explain: Explain, *arguments: str) -> dict[str, dict[str, Any]]:
    """Of the one container that is explained, by path."""
    status, out = explain(*arguments, "-o", "json")
    assert status == 0
    [one] = json.loads(out)
    return {row["path"]: row for row in one["rows"]}


@pytest.fixture
def crictl(tmp_path: Path) -> list[str]:
    """The two files that crictl takes."""
    pod = {"metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "linux": {"cgroup_parent": "/x"}}
    container = {"metadata": {"name": "main"}, "image": {"image": "box:1"}, "command": ["top"]}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    (tmp_path / "container.json").write_text(json.dumps(container))
    return [
        "--pod-config",
        str(tmp_path / "pod.json"),
        "--container-config",
        str(tmp_path / "container.json"),
    ]


# Why


@pytest.mark.parametrize("name", list(golden.CASES))
def test_no_value_of_a_recorded_case_is_without_a_reason(name: str) -> None:
    case = load(golden.CASES[name])
    if name in golden.ELSEWHERE:
        pytest.skip("not the builder's")
    try:
        built = build_container(golden._container(case), golden._host(case, "container_spec"), explain=True)
    except PodwrightError:
        pytest.skip("there is no spec")
    assert [path for path in places(built.spec) if not origin(path, built.origins)] == []


def test_the_hello_pod_as_it_is_explained(explain: Explain, roots: list[str]) -> None:
    status, out = explain(str(HELLO), "--container", "server")
    for place, root in zip(("ROOT", "RUN"), roots[1::2], strict=True):
        out = out.replace(root, place)
    # Columns are as wide as what stands in them, and that had the directory's name in it.
    found = re.sub(" {2,}", "  ", out).rstrip()
    if os.environ.get("PODWRIGHT_RECORD"):
        GOLDEN.write_text(f"{found}\n")
    assert status == 0
    assert f"{found}\n" == GOLDEN.read_text()


def test_each_row_has_its_reason(explain: Explain) -> None:
    found = rows(explain, str(HELLO), "--container", "server")
    assert [path for path, row in found.items() if not row["because"]] == []
    assert found["process.env[PAGE]"]["value"] == "Hello from pod hello!"
    assert found["process.env[PAGE]"]["because"] == "request: config.envs[PAGE]"
    assert found["mounts[/shared]"]["because"] == "request: config.mounts[0]"
    assert found["mounts[/proc]"]["because"].startswith("default: ")


def test_all_containers_and_the_pods_own_process(explain: Explain, tmp_path: Path) -> None:
    text = HELLO.read_text().replace("restartPolicy:", "shareProcessNamespace: true\n  restartPolicy:")
    (tmp_path / "pod.yaml").write_text(text)
    _, out = explain(str(tmp_path / "pod.yaml"))
    titles = [line for line in out.splitlines() if line.endswith("OCI runtime spec")]
    assert titles == [
        "hello/server: OCI runtime spec",
        "hello/client: OCI runtime spec",
        "hello (the pod's own process): OCI runtime spec",
    ]


def test_json_is_the_spec_alone(explain: Explain) -> None:
    status, out = explain(str(HELLO), "--container", "client", "--json")
    spec = json.loads(out)
    assert status == 0 and spec["ociVersion"] and spec["root"]["path"].endswith("CONTAINER_ID/rootfs")
    with pytest.raises(InvalidArgument, match=r"--container \(server, client\)"):
        explain(str(HELLO), "--json")


def test_a_part_of_it_in_full(explain: Explain) -> None:
    _, out = explain(str(HELLO), "--container", "client", "--path", "linux.maskedPaths")
    assert out.splitlines()[1:3] == ["linux.maskedPaths", "  request: config.linux.security_context"]
    assert '    "/proc/kcore",' in out.splitlines()
    with pytest.raises(PodwrightError, match=r"nothing at 'linux\.res'"):
        explain(str(HELLO), "--path", "linux.res")


def test_nothing_is_made(explain: Explain, tmp_path: Path) -> None:
    explain(str(HELLO))
    assert list(tmp_path.iterdir()) == []


# Inputs


def test_what_crictl_takes(explain: Explain, crictl: list[str]) -> None:
    found = rows(explain, *crictl, "--container", "main")
    assert found["process.args"] == {
        "path": "process.args", "value": ["top"], "because": "request: config.command, config.args"
    }  # fmt: skip
    assert found["linux.cgroupsPath"]["value"] == "/x/CONTAINER_ID"


def test_enums_by_number_or_name_and_env_as_written(tmp_path: Path) -> None:
    tree = {"metadata": {"name": "x", "namespace": "n", "uid": "u"}, "linux": {"security_context": {}}}
    for written in (2, "NODE"):
        options = {"linux": {"security_context": {"namespace_options": {"network": written}}}}
        config = _asked(
            tree | options, {"envs": [{"key": "A", "value": "test"}, {"key": "B", "value": "aGk="}]}
        )
        assert config.sandbox.config.linux.security_context.namespace_options.network == 2
        # What could be base64 is text, too: crictl takes it so.
        assert [each.value for each in config.container.config.envs] == [b"test", b"aGk="]


def _asked(pod: Any, container: Any) -> Any:
    class Anything:
        async def find(self, reference: str) -> Any:
            from podwright.engines.base import Image

            return Image(reference, (), (), 1, {})

    source = CriSource(pod, {"metadata": {"name": "c"}, "image": {"image": "i"}} | container)
    return asyncio.run(source.asked(None, Anything(), Path("/")))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words_of_it"),
    [
        ({"imag": 1}, 'no field named "imag"'),
        ({"linux": {"resources": {"cpu_share": 1}}}, 'no field named "cpu_share"'),
        ({"tty": "yes"}, "tty"),
        ({"metadata": {}}, r"config\.metadata\.name: is required"),
        ({"log_path": "/x"}, r"config\.log_path"),
    ],
)
def test_what_is_no_configuration_is_named(
    explain: Explain, crictl: list[str], change: dict[str, Any], words_of_it: str
) -> None:
    file = Path(crictl[-1])
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InvalidArgument, match=words_of_it):
        explain(*crictl)


def test_what_is_missing_on_the_command_line_is_said(explain: Explain, crictl: list[str]) -> None:
    for arguments in ((), crictl[2:], (str(HELLO), *crictl), (str(HELLO), "--container", "none")):
        with pytest.raises(
            PodwrightError, match=r"name a Pod|needs --pod-config|not both|only server, client"
        ):
            explain(*arguments)


def test_the_images_configuration_from_a_file(explain: Explain, crictl: list[str], tmp_path: Path) -> None:
    Path(crictl[-1]).write_text('{"metadata": {"name": "main"}, "image": {"image": "box:1"}}')
    _, out = explain(*crictl)
    assert "IMAGE_COMMAND" in out and "image 'box:1' is not here" in out
    (tmp_path / "config.json").write_text('{"os": "linux", "config": {"Cmd": ["run"], "User": "web"}}')
    found = rows(explain, *crictl, "--container", "main", "--image-config", str(tmp_path / "config.json"))
    assert (found["process.args"]["value"], found["process.args"]["because"]) == (
        ["run"],
        "image: Entrypoint, Cmd",
    )
    assert found["process.user"]["because"] == "image: the number of user web is not known here"


# What would change


@pytest.mark.parametrize(
    ("diff", "path", "before", "after"),
    [
        ("spec.containers[client].securityContext.runAsUser=7", "process.user", 0, 7),
        ("spec.containers[1].workingDir=/tmp", "process.cwd", "/", "/tmp"),
        ("metadata.annotations[a.b/c]=x", None, None, None),
        ("spec.hostNetwork=true", "linux.namespaces[network]", "net", None),
        ("spec.containers[1].env=[{name: NEW, value: v}]", "process.env[NEW]", None, "v"),
    ],
)
def test_a_setting_of_the_manifest(explain: Explain, diff: str, path: str, before: Any, after: Any) -> None:
    status, out = explain(str(HELLO), "--container", "client", "--diff", diff, "-o", "json")
    if path is None:
        assert (status, json.loads(out)) == (0, [])
        return
    assert status == 1
    [one] = json.loads(out)
    found = {row["path"]: row for row in one["changes"]}[path]
    for side, wanted in (("before", before), ("after", after)):
        value = found[side]
        if isinstance(value, dict):
            value = value.get("uid", value.get("path", "").rpartition("/")[2])
        assert value == wanted
    assert found["because"].startswith("no longer: ") == (after is None)


def test_what_would_change_between_handlers(explain: Explain) -> None:
    status, out = explain(str(HELLO), "--diff", "handler=runc")
    assert (status, out.splitlines()[0]) == (0, "nothing would change")
    status, out = explain(str(HELLO), "--container", "client", "--diff", "handler=runsc")
    assert status == 1 and "annotations[io.kubernetes.cri.container-type]" in out
    status, again = explain(
        str(HELLO), "--container", "client", "--handler", "runsc", "--diff", "handler=crun"
    )
    assert status == 1 and len(again.splitlines()) == len(out.splitlines())


def test_what_would_change_between_engines_files_and_settings_of_the_cri(
    explain: Explain, crictl: list[str], tmp_path: Path
) -> None:
    status, out = explain(str(HELLO), "--container", "client", "--diff", "engine=fake")
    assert status == 1 and "fake scenario" in out and "when its program does" in out
    other = tmp_path / "other.yaml"
    other.write_text(HELLO.read_text().replace("8080/ ", "9090/ "))
    status, out = explain(str(HELLO), "--diff", str(other), "-o", "json")
    assert status == 1
    assert [(one["title"], [row["path"] for row in one["changes"]]) for one in json.loads(out)] == [
        ("hello/client", ["process.args"])
    ]
    status, out = explain(*crictl, "--diff", "sandbox_config.hostname=n", "--diff", "config.tty=true")
    assert status == 1
    changed = {line.split()[0] for line in out.splitlines()[2:] if line}
    assert {"process.env[TERM]", "process.env[HOSTNAME]", "process.terminal"} <= changed


@pytest.mark.parametrize(
    "diff",
    [
        "handler=none",
        "spec.containers[9].image=x",
        "spec.containers[0].nonsense=1",
        "spec.restartPolicy.deeper=1",
        "spec..x=1",
        "/nonexistent.yaml",
        "engine=none",
        "spec.containers[0].securityContext={capabilities: {add: [NO_SUCH]}}",
    ],
)
def test_trouble_is_2(explain: Explain, diff: str) -> None:
    assert explain(str(HELLO), "--diff", diff)[0] == 2


def test_putting_a_value_leaves_the_rest() -> None:
    tree = {"a": [{"name": "x", "v": 1}, {"name": "y"}], "b": {"c.d": 2}}
    assert put(tree, "a[y].v", 3)["a"] == [{"name": "x", "v": 1}, {"name": "y", "v": 3}]
    assert put(tree, "a[2].name", "z")["a"][2] == {"name": "z"}
    assert put(tree, "b[c.d]", 4)["b"] == {"c.d": 4}
    assert put(tree, "n.m[0].o", 5)["n"] == {"m": [{"o": 5}]}
    assert tree == {"a": [{"name": "x", "v": 1}, {"name": "y"}], "b": {"c.d": 2}}
    assert (value_at(tree, "a[x].v"), value_at(tree, "a[5].v"), value_at(tree, "b[c.d]")) == (1, None, 2)


# Hooks


def test_what_hooks_changed_has_their_name(explain: Explain, tmp_path: Path) -> None:
    hook, config = tmp_path / "site.py", tmp_path / "config.toml"
    hook.write_text(
        "from podwright import hooks\n"
        "@hooks.adjust()\n"
        "def kinder(spec, target):\n"
        "    spec['process']['oomScoreAdj'] = 5\n"
        "@hooks.validate('CreateContainer')\n"
        "def picky(request):\n"
        "    if request.config.metadata.name == 'client':\n"
        "        raise hooks.Rejected('config.metadata', 'not here')\n"
    )
    hook.chmod(0o644)
    config.write_text(f'hooks = ["{hook}"]\n')
    options = ("--config", str(config))
    status, out = explain(str(HELLO), "--container", "server", "-o", "json", options=options)
    [row] = [row for row in json.loads(out)[0]["rows"] if row["path"] == "process.oomScoreAdj"]
    assert status == 0 and (row["value"], row["because"]) == (5, "hook: site.kinder")
    with pytest.raises(PodwrightError, match=r"not here \(hook site\.picky\)"):
        explain(str(HELLO), options=options)


# The fake engine


def test_the_fake_engine_tells_its_scenario(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "containers:\n"
        "- {match: {container: other}, start_error: no}\n"
        "- {match: {container: client}, program: [sleep, '5'], exit: {code: 3}, ignore: [SIGTERM]}\n"
        "pods:\n- {latency: 2s}\n"
        "faults:\n- {on: StopContainer, error: {code: Unknown}}\n- {on: '*', match: {pod: x}, latency: 1s}\n"
    )
    arguments = (str(HELLO), "--engine", "fake", "--scenario", str(tmp_path / "s.yaml"))
    found = rows(explain, *arguments, "--container", "client")
    reasons = {path: row["because"] for path, row in found.items()}
    assert found["process.args"]["value"] == ["sleep", "5"]
    assert reasons["process.args"] == "scenario: containers[1].program"
    assert reasons["ends.code"] == "scenario: containers[1].exit"
    assert reasons["ignore"] == "scenario: containers[1].ignore"
    assert reasons["faults"] == "scenario: faults[0]"
    assert all(reasons.values())
    with pytest.raises(PodwrightError, match="no handler 'none'"):
        explain(*arguments, "--handler", "none")
    _, out = explain(*arguments)
    assert "hello (the pod's own process): fake scenario" in out and "scenario: pods[0].latency" in out


async def test_a_server_knows_its_images_and_its_containers(tmp_path: Path) -> None:
    scenario = {"images": {"items": [{"reference": "nginx", "config": {"Cmd": ["serve"], "User": "7"}}]}}
    async with FakeNode(scenario, root=tmp_path / "state") as node, node.serve(tmp_path / "s.sock"):
        sandbox = await requests.run_pod(node.cri, "web")
        await requests.run_container(node.cri, sandbox)

        async def run(*arguments: str) -> Any:
            command = [*PROGRAM, "--socket", str(tmp_path / "s.sock"), "explain", *arguments, "-o", "json"]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        (tmp_path / "pod.yaml").write_text(
            "{apiVersion: v1, kind: Pod, metadata: {name: p},"
            " spec: {containers: [{name: c, image: nginx, imagePullPolicy: Never}]}}"
        )
        [planned] = await run(str(tmp_path / "pod.yaml"))
        reasons = {row["path"]: (row["value"], row["because"]) for row in planned["rows"]}
        assert reasons["process.args"] == (["serve"], "image: Entrypoint, Cmd")
        existing = await run("web")
        assert existing["container"] == "web/main" and existing["state"] == "running"
        found = {row["path"]: row for row in existing["rows"]}
        assert found["process.args"]["given"] == ["serve"] and found["process.args"]["seen"] is None
        assert any("fake engine's" in warning for warning in existing["warnings"])


# An unprivileged user


def test_who_is_not_root_can_ask_too(tmp_path: Path) -> None:
    with open_user() as user:
        shutil.copy(HELLO, user.home / "hello.yaml")
        done = user.run("-m", "podwright", "explain", str(user.home / "hello.yaml"), "-o", "json")
        assert done.returncode == 0, done.stderr
        [server, _] = json.loads(done.stdout)
        paths = {row["path"]: row["value"] for row in server["rows"]}
        assert paths["root.path"] == "/run/podwright/containers/CONTAINER_ID/rootfs"
        assert any("this user cannot see it" in warning for warning in server["warnings"])
        assert not (user.home / ".local").exists()


# How it looks


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_rows_keep_to_the_width_of_the_terminal(
    explain: Explain, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(explain_table, "_on_terminal", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((width, 50)))
    monkeypatch.setenv("NO_COLOR", "1")
    _, out = explain(str(HELLO), "--container", "server")
    assert max(map(len, out.splitlines())) <= width
    assert "process.env" in out.splitlines() and "  [PAGE]" in out
    _, wide = explain(str(HELLO), "--container", "server", "--wide")
    assert "request: config.linux.security_context.run_as_user" in wide and "…" not in wide


def test_values_in_words() -> None:
    sets = {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    assert words("process.capabilities", sets) == "CHOWN(bounding only) KILL"
    sets["ambient"] = ["CAP_KILL"]
    assert words("process.capabilities", sets) == "CHOWN(bounding only) KILL(+ambient)"
    assert words("process.rlimits[RLIMIT_CORE]", {"soft": -1, "hard": 2**64 - 1}) == "unlimited:unlimited"
    assert words("linux.resources.devices", [{"allow": False, "access": "rwm"}]) == "deny a *:* rwm"
    assert words("process.args", ["sh", "-c", "a b"]) == '["sh","-c","a b"]'
    assert apart("linux.maskedPaths", ["/a", "/b"], ["/b", "/c"]) == ("/a", "/c")
    mounts = [{"type": "sysfs", "source": "sysfs", "options": ["nosuid", each]} for each in ("ro", "rw")]
    assert apart("mounts[/sys]", *mounts) == ("ro", "rw")
    assert apart("linux.maskedPaths", ["/a"], ["/a", "/c"]) == ("(all 1 of these)", "/c")
    assert explain_table.shortened("request: config.linux.security_context.run_as_user", 24) == (
        "request: …xt.run_as_user"
    )
    assert explain_table.shortened('["sh","-c","a/b/c"]', 12) == '["sh","-c",…'
    assert explain_table.shortened("a long sentence of words", 10) == "a long se…"
