"""Links to logs, where log shippers look: their names, and the end of dead ones."""

from __future__ import annotations

from pathlib import Path

from podwright.kube.files import log_links
from podwright.kube.files.directory import PodDirectory
from tests.kube.volume_pods import node, pod

ID = "f" * 64


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def test_a_link_has_its_container_s_names_and_leads_to_its_log(tmp_path: Path) -> None:
    here, made = node(tmp_path, legacy_logs=tmp_path / "links"), pod([])
    log = PodDirectory.of(here, "default", "p", made.uid).log("c", 0)
    log_links.make(here, made, made.containers[0], ID, log)
    assert not (tmp_path / "links").exists()  # no log, no link
    log.parent.mkdir(parents=True)
    log.write_text("x")
    for _ in range(2):
        log_links.make(here, made, made.containers[0], ID, log)
    link = tmp_path / "links" / f"p_default_c-{ID}.log"
    assert names(tmp_path / "links") == [link.name]
    assert link.read_text() == "x"
    log_links.remove(here, made, "c", ID)
    assert names(tmp_path / "links") == []


def test_a_long_name_is_cut_before_the_suffix(tmp_path: Path) -> None:
    made = pod([])
    name = log_links.path(tmp_path, made, "c" * 250, ID).name
    assert len(name) == 255
    assert name.endswith("c.log")


def test_links_to_logs_that_are_gone_go_and_those_of_others_stay(tmp_path: Path) -> None:
    here, made = node(tmp_path, legacy_logs=tmp_path / "links"), pod([])
    log = PodDirectory.of(here, "default", "p", made.uid).log("c", 0)
    log.parent.mkdir(parents=True)
    log.write_text("x")
    log_links.make(here, made, made.containers[0], ID, log)
    foreign = tmp_path / "links" / "foreign.log"
    foreign.symlink_to("/nowhere/at/all.log")
    (tmp_path / "links" / "file.log").write_text("no link")
    assert log_links.sweep(here) == []
    rotated = log.rename(log.with_name("0.log.20260102-030405"))
    assert log_links.sweep(here) == []  # a new one is about to be there
    rotated.unlink()
    assert [one.name for one in log_links.sweep(here)] == [f"p_default_c-{ID}.log"]
    assert names(tmp_path / "links") == ["file.log", "foreign.log"]


def test_nothing_is_linked_where_nobody_asked_for_it(tmp_path: Path) -> None:
    here, made = node(tmp_path), pod([])
    log = tmp_path / "0.log"
    log.write_text("x")
    log_links.make(here, made, made.containers[0], ID, log)
    assert log_links.sweep(here) == []
    assert names(tmp_path) == ["0.log"]
