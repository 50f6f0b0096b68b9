"""Stop signals: every spelling in use, and refusal of everything else."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.spec.signals import effective_stop_signal, parse_signal
from podwright.wire import cri_pb2 as cri


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("9", "SIGKILL", 9),
        ("KILL", "SIGKILL", 9),
        ("SIGKILL", "SIGKILL", 9),
        ("sigkill", "SIGKILL", 9),
        (" SIGQUIT ", "SIGQUIT", 3),
        ("37", "SIGRTMINPLUS3", 37),
        ("SIGRTMIN", "SIGRTMIN", 34),
        ("SIGRTMIN+3", "SIGRTMINPLUS3", 37),
        ("RTMIN+15", "SIGRTMINPLUS15", 49),
        ("rtmax-2", "SIGRTMAXMINUS2", 62),
        ("SIGRTMAX-14", "SIGRTMAXMINUS14", 50),
        ("SIGRTMAX", "SIGRTMAX", 64),
        ("SIGRTMINPLUS3", "SIGRTMINPLUS3", 37),
        ("RTMIN+0", "SIGRTMIN", 34),
        ("IOT", "SIGIOT", 6),
        ("6", "SIGABRT", 6),
        ("POLL", "SIGPOLL", 29),
    ],
)
def test_every_spelling_of_a_signal_is_understood(text: str, name: str, number: int) -> None:
    assert parse_signal(text) == (name, number, cri.Signal.Value(name))


@pytest.mark.parametrize("text", ["SIGNOPE", "0", "65", "-9", "SIGRTMIN+16", "SIGRTMAX-15", "32", "", "²"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_signal(text)


@pytest.mark.parametrize(
    ("requested", "image", "name"),
    [
        (cri.Signal.RUNTIME_DEFAULT, "", "SIGTERM"),
        (cri.Signal.RUNTIME_DEFAULT, "SIGQUIT", "SIGQUIT"),
        (cri.Signal.SIGUSR1, "SIGQUIT", "SIGUSR1"),
        # What does not count is not looked at.
        (cri.Signal.SIGUSR1, "SIGNOPE", "SIGUSR1"),
    ],
)
def test_the_request_beats_the_image_and_sigterm_is_the_default(
    requested: int, image: str, name: str
) -> None:
    assert effective_stop_signal(requested, image).name == name


@pytest.mark.parametrize(("requested", "image"), [(0, "SIGNOPE"), (999, "")])
def test_an_invalid_effective_signal_is_refused(requested: int, image: str) -> None:
    with pytest.raises(InvalidArgument):
        effective_stop_signal(requested, image)


@pytest.mark.parametrize("value", [value for value in cri.Signal.values() if value])
def test_every_signal_of_the_cri_has_a_number_and_keeps_its_own_name(value: int) -> None:
    found = effective_stop_signal(value, "")
    assert found.cri == value
    assert 1 <= found.number <= 64
    if found.number < 32:
        assert found.number in {int(item) for item in signal.Signals}


@given(st.text())
def test_any_text_is_a_signal_or_refused(text: str) -> None:
    try:
        assert 1 <= parse_signal(text).number <= 64
    except InvalidArgument:
        pass
