"""Which of several platforms is taken: tables of what the field does, and laws that hold for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.images.platform import Platform, best, host_platform, parse_platform


def of(text: str) -> Platform | None:
    return Platform(*text.split("/")) if text else None


@pytest.mark.parametrize(
    ("wanted", "offered", "taken"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "linux/s390x"], None),
        ("linux/amd64", ["windows/amd64", "darwin/amd64"], None),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        # Names that are said in several ways.
        ("linux/amd64", ["linux/x86_64"], 0),
        ("linux/arm64", ["linux/aarch64/8"], 0),
        ("linux/arm/7", ["linux/armhf/v7"], 0),
        # Older variants run on newer machines, the newest of them best.
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm/v6", ["linux/arm"], None),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/amd64/v1", ["linux/amd64"], 0),
        # 64 bits run the older 32 when there is nothing else.
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/amd64/v3", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/386", ["linux/amd64"], None),
        # Variants of which nothing is known are themselves and nothing else.
        ("linux/mips64le/hardfloat", ["linux/mips64le", "linux/mips64le/hardfloat"], 1),
        ("linux/mips64le", ["linux/mips64le/hardfloat"], None),
        # One that says nothing is taken when there is no choice.
        ("linux/amd64", [""], 0),
        ("linux/amd64", ["", "linux/amd64"], 1),
        ("linux/amd64", ["", "linux/arm64"], None),
        ("linux/amd64", [], None),
    ],
)
def test_which_is_taken(wanted: str, offered: list[str], taken: int | None) -> None:
    assert best(Platform(*wanted.split("/")), [of(each) for each in offered]) == taken


platforms = st.builds(
    Platform,
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(["amd64", "arm64", "arm", "386", "s390x", "riscv64"]),
    st.sampled_from(["", "v1", "v2", "v3", "v5", "v6", "v7", "v8", "v9", "odd"]),
)


@given(wanted=platforms, offered=st.lists(platforms))
def test_what_is_wanted_itself_is_always_good_enough(wanted: Platform, offered: list[Platform]) -> None:
    place = best(wanted, [*offered, wanted])
    assert place is not None
    # Nothing is taken that would not be taken alone, and what is taken first still is when more is offered.
    taken = [*offered, wanted][place]
    assert best(wanted, [taken]) == 0
    assert best(wanted, [taken, *offered]) == 0


V1 = "fpu msr pae cx8 sse sse2"
V2 = f"{V1} cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("machine", "flags", "platform"),
    [
        ("x86_64", V1, "linux/amd64/v1"),
        ("x86_64", V2, "linux/amd64/v2"),
        ("x86_64", V3, "linux/amd64/v3"),
        ("x86_64", V4, "linux/amd64/v4"),
        ("x86_64", V4.replace(" ssse3", ""), "linux/amd64/v1"),
        ("x86_64", "", "linux/amd64/v1"),
        ("aarch64", "", "linux/arm64/v8"),
        ("armv7l", "", "linux/arm/v7"),
        ("armv6l", "", "linux/arm/v6"),
        ("i686", "", "linux/386"),
        ("s390x", "", "linux/s390x"),
    ],
)
def test_what_a_host_is_called(machine: str, flags: str, platform: str) -> None:
    assert str(host_platform(machine, f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")) == platform


def test_this_host_runs_what_is_made_for_it() -> None:
    host = host_platform()
    assert best(host, [Platform("linux", host.architecture)]) == 0


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/a b"])
def test_what_is_no_platform_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^images\.platform: "):
        parse_platform(text)


def test_a_platform_is_read_as_it_is_written() -> None:
    for text in ("linux/arm/v7", "linux/amd64"):
        assert str(parse_platform(text)) == text
