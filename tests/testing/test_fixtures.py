"""The fixtures as another project meets them: its own tests, run by plain pytest and pytest-asyncio."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from podwright import testing

TESTS = """
import asyncio
import grpc
import pytest
from podwright import errors
from podwright.wire import cri_pb2 as cri
from podwright.wire.cri_pb2_grpc import RuntimeServiceStub

{mark}
async def test_a_node(fake_node):
    async with await fake_node.runtime.run_sandbox("web"):
        fake_node.inject_error("ListPodSandbox", errors.Unavailable("busy"))
        with pytest.raises(errors.Unavailable):
            await fake_node.runtime.sandboxes()
        await fake_node.crash("10m")
    fake_node.calls.assert_order(["RunPodSandbox web", "StopPodSandbox web", "RemovePodSandbox web"])

{mark}
async def test_two_nodes(fake_node_factory):
    one = await fake_node_factory(seed=7)
    two = await fake_node_factory({{"network_error": "cut"}}, seed=7)
    await one.runtime.run_sandbox("web")
    with pytest.raises(errors.PodwrightError, match="cut"):
        await two.runtime.run_sandbox("web")

def test_a_server(fake_server):
    with grpc.insecure_channel(f"unix:{{fake_server.socket}}") as channel:
        answer = RuntimeServiceStub(channel).Version(cri.VersionRequest())
    assert answer.runtime_name == "podwright"
    assert [call["rpc"] for call in fake_server.control.get("/v1/calls")["calls"]] == ["Version"]
    assert fake_server.endpoint == f"unix://{{fake_server.socket}}"

def test_a_server_is_another_process_each_time(fake_server):
    assert fake_server.control.get("/v1/calls")["total"] == 0
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixtures_work_in_both_modes_of_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["podwright.testing.fixtures"]\n')
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    (tmp_path / "test_it.py").write_text(TESTS.format(mark=mark))
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        left = [path.name for path in Path(temporary).iterdir() if path.name.startswith("podwright")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert left == []


def test_nothing_but_the_fixtures_needs_pytest() -> None:
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('pytest', 'pytest_asyncio', '_pytest'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import podwright.testing as testing\n"
        "for name in testing.__all__: getattr(testing, name)\n"
        "import podwright.testing.control, podwright.testing.serving\n"
        "try:\n"
        "    import podwright.testing.fixtures\n"
        "except ImportError: print('only these')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "only these\n", "")


def test_every_name_of_the_package_is_where_its_types_say() -> None:
    source = ast.parse(Path(testing.__file__).read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("podwright.")
        for alias in node.names
    }
    assert sorted(typed) == sorted(testing.__all__)
    for name, module in typed.items():
        assert getattr(testing, name).__module__ == module
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = testing.Nothing
