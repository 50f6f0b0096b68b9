"""The configuration file: what is wrong in it is told by the key, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.config import load
from podwright.errors import InvalidArgument


def loaded(tmp_path: Path, text: str) -> str:
    """What is said of a file; "" for a good one."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    try:
        load(file)
    except InvalidArgument as error:
        assert error.field == str(file)
        return str(error).removeprefix(f"{file}: ")
    return ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[handlers.x]", "handlers.x: needs the key `path`, or `runtime_type`"),
        ("[handlers.x]\npath = 'a'\n[handlers.y]\npath = 3", "handlers.y.path: Expected `str`, got `int`"),
        ("[handlers.x]\npath = 'a'\npaht = 3", "handlers.x: there is no key `paht`"),
        ("handlers.x = 3", "handlers.x: Expected `object`, got `int`"),
        ("handlers = 3", "handlers: Expected `object`, got `int`"),
        ("lisen = 1", "there is no key `lisen`"),
        ("[cni]\nconfdir = 'a'", "cni: there is no key `confdir`"),
        ("[node]\ncontainer_log_max_size = -1", "node.container_log_max_size: Expected `int` >= 0"),
        ("[node]\ncontainer_log_max_files = 1", "node.container_log_max_files: Expected `int` >= 2"),
        ("[node]\nmax_backoff = -0.5", "node.max_backoff: Expected `float` >= 0.0"),
        ("[node]\nmax_backoff = nan", "node.max_backoff: Expected `float` >= 0.0"),
        ("create_timeout = 0", "create_timeout: Expected `float` > 0.0"),
        ("[images]\nmax_concurrent_downloads = 0", "images.max_concurrent_downloads: Expected `int` >= 1"),
        ("[spec]\npids_limit = -2", "spec.pids_limit: Expected `int` >= -1"),
        ("engine = 'ocj'", "engine: Invalid enum value 'ocj'"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    assert loaded(tmp_path, text) == told


def test_a_built_in_handler_need_not_tell_its_program(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[handlers.runc]\nminimum_memory = 5\n[handlers.own]\npath = '/own'")
    handlers = load(file).handlers
    assert (handlers["runc"].path, handlers["runc"].minimum_memory) == ("runc", 5)
    assert handlers["own"].path == "/own" and handlers["crun"].path == "crun"


def test_a_shim_needs_no_program(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[handlers.kata]\nruntime_type = 'io.containerd.kata.v2'")
    assert load(file).handlers["kata"].path == ""
