"""The table of a Pod's fields: whole, shown in the documentation, and obeyed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec.inspect
import pytest

from podwright.kube import models
from podwright.kube.manifests import fields
from tools import pod_fields


def every_field() -> Iterator[tuple[str, str]]:
    """Structures that a Pod leads to by fields that work, with their fields."""
    waiting: list[type] = [models.Pod]
    seen: set[str] = set()
    while waiting:
        kind = waiting.pop()
        if kind.__name__ in seen:
            continue
        seen.add(kind.__name__)
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        works = fields.WORKS.get(kind.__name__, "").split()
        for field in info.fields:
            yield kind.__name__, field.name
            if field.name in works:
                waiting.extend(_structures(field.type))


def _structures(kind: msgspec.inspect.Type) -> Iterator[type]:
    if isinstance(kind, msgspec.inspect.StructType):
        yield kind.cls
    elif isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from _structures(one)
    elif isinstance(kind, msgspec.inspect.ListType):
        yield from _structures(kind.item_type)


def test_every_field_is_decided_about_once() -> None:
    for kind, name in every_field():
        decisions = [
            name in fields.WORKS.get(kind, "").split(),
            name in fields.NO_EFFECT.get(kind, {}),
            name in fields.REFUSED.get(kind, {}),
        ]
        assert decisions.count(True) == 1, f"{kind}.{name}"


def test_the_table_has_no_field_that_there_is_not() -> None:
    real = set(every_field())
    for kind, names in fields.WORKS.items():
        for name in (*names.split(), *fields.NO_EFFECT.get(kind, {}), *fields.REFUSED.get(kind, {})):
            assert (kind, name) in real, f"{kind}.{name}"
    assert set(fields.NO_EFFECT) | set(fields.REFUSED) <= set(fields.WORKS)


def test_the_page_shows_the_table() -> None:
    text = pod_fields.PAGE.read_text()
    assert pod_fields.BEGIN in text and pod_fields.END in text
    assert text == pod_fields.page(text), "run tools/pod_fields.py"


@pytest.mark.parametrize(
    ("pod", "path", "refused"),
    [
        (models.Pod(spec=models.PodSpec(containers=[], resourceClaims=[{"name": "x"}])),
         "spec.resourceClaims", True),
        (models.Pod(spec=models.PodSpec(containers=[], nodeSelector={"a": "b"})), "spec.nodeSelector", False),
    ],
)  # fmt: skip
def test_what_is_set_is_told(pod: models.Pod, path: str, refused: bool) -> None:
    assert [(one.path, one.refused) for one in fields.examine(pod)] == [(path, refused)]


def test_a_volume_that_somebody_provides_is_taken_as_it_is() -> None:
    volume = models.Volume(name="data", nfs=None, persistentVolumeClaim=_claim())
    pod = models.Pod(spec=models.PodSpec(containers=[], volumes=[volume]))
    assert [one.path for one in fields.examine(pod)] == ["spec.volumes[0].persistentVolumeClaim"]
    assert not list(fields.examine(pod, bound=frozenset({"data"})))


def _claim() -> object:
    from lightkube.models.core_v1 import PersistentVolumeClaimVolumeSource

    return PersistentVolumeClaimVolumeSource(claimName="c")
