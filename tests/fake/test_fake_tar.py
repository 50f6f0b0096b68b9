"""The built-in tar against Python's: what it packs can be read, what others pack it unpacks."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from tests.fake.containers import Case, Node
from tests.fake.test_fake_exec import run
from tests.oci.clients import Client

LONG = "/".join(["directory" * 8] * 4) + "/file"


@pytest.fixture
async def case(tmp_path: Path) -> Case:
    return await Node(tmp_path).start("sleep", "inf")


async def tar(case: Case, *arguments: str, sent: bytes = b"") -> tuple[int, bytes, str]:
    client = Client(*([sent] if sent else []), closed=True)
    async with asyncio.timeout(30):
        code = await run(case, client.streams, "tar", *arguments)
    return code, bytes(client.stdout.data), client.stderr.data.decode()


def archive(form: int, *members: tuple[str, bytes | None]) -> bytes:
    """None is a directory."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            made.addfile(member, io.BytesIO(content or b""))
    return file.getvalue()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_what_is_unpacked_is_packed_again(case: Case, form: int) -> None:
    content = {
        "top/a": b"one\n",
        f"top/{LONG}": bytes(range(256)) * 1000,
        "top/ä": b"",
        "top/512": b"x" * 512,
    }
    sent = archive(form, ("top", None), *content.items())
    assert await tar(case, "xf", "-", "-C", "/tmp", sent=sent) == (0, b"", "")
    code, packed, words = await tar(case, "cf", "-", "-C", "/tmp", "top")
    assert (code, words) == (0, "")
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        files = {each.name: found.extractfile(each) for each in found if each.isreg()}
        assert {name: file.read() for name, file in files.items() if file is not None} == content
    assert (await tar(case, "tf", "-", sent=packed))[1].splitlines()[0] == b"top/"


async def test_a_directory_alone(case: Case) -> None:
    code, packed, _ = await tar(case, "cf", "-", "-C", "/etc", "--no-recursion", ".")
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        assert (code, found.getnames()) == (0, ["."])
    code, _, words = await tar(case, "cf", "-", "-C", "/no", ".")
    assert (code, words) == (1, "tar: can't change directory to '/no': No such file or directory\n")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"no archive" * 100, "invalid tar magic"),
        (archive(tarfile.GNU_FORMAT, ("a", b"x" * 2000))[:1500], "short read"),
        (archive(tarfile.GNU_FORMAT, ("../../out", b"x")), "name with '..' skipped: '../../out'"),
        (archive(tarfile.GNU_FORMAT, ("proc/x", b"x")), "can't create 'proc/x'"),
    ],
)
async def test_what_cannot_be_unpacked_is_told(case: Case, sent: bytes, words: str) -> None:
    code, _, said = await tar(case, "xf", "-", "-C", "/", sent=sent)
    assert code == 1 and words in said


async def test_files_named_alone_and_an_archive_in_a_file(case: Case) -> None:
    sent = archive(tarfile.GNU_FORMAT, ("a/b", b"1\n"), ("c", b"2\n"), ("e", b"3\n"))
    assert (await tar(case, "-x", "-v", "-f", "-", "-C", "/tmp", "a", "e", sent=sent))[1] == b"a/b\ne\n"
    assert (await tar(case, "cf", "/tmp/t.tar", "-C", "/tmp", "a", "e", "none"))[0] == 1
    assert (await tar(case, "-tf", "/tmp/t.tar"))[1] == b"a/\na/b\ne\n"
