"""The roll of list entries, beside a plain list of them, through any order of additions and removals."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.core import roll
from podwright.core.roll import Page, Roll, entry


@dataclass(eq=False)
class Item:
    page: Page | None = None
    at: int = 0
    size: int = 0


act = st.one_of(
    st.tuples(st.just("add"), st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("change"), st.integers(0, 255)),
    st.tuples(st.just("remove"), st.just(0)),
)


@given(acts=st.lists(st.tuples(act, st.integers(0, 1 << 16)), max_size=80), page=st.integers(1, 40))
def test_roll_holds_what_a_list_would(acts: list[tuple[tuple[str, bytes | int], int]], page: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roll, "PAGE", page)
        rolled = Roll()
        model: list[tuple[Item, bytes]] = []
        for (kind, value), number in acts:
            at = number % len(model) if model else 0
            if isinstance(value, bytes):
                model.append((Item(), value))
                rolled.add(*model[-1])
            elif kind == "change" and model:
                item, former = model[at]
                model[at] = item, former[:-1] + bytes([value])
                rolled.change_end(item, value)
            elif kind == "remove" and model:
                rolled.remove(model[at][0])
                del model[at]
            assert rolled.all() == b"".join(each for _, each in model)
            assert len(rolled.pages) <= len(model)  # empty ones are let go
            for item, encoded in model:
                assert entry(item) == encoded


def test_item_without_entry_can_be_removed() -> None:
    rolled, item = Roll(), Item()
    rolled.add(item, b"one")
    rolled.remove(item)
    rolled.remove(item)
    assert rolled.all() == b""
    rolled.add(item, b"again")
    assert rolled.all() == b"again"
