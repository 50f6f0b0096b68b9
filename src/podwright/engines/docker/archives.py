"""Images into a Docker Engine and out of it as docker-archives, the one form that keeps an image what it is.

OCI layouts and archives become one by skopeo, which leaves the configuration, and so the id, as it is. The
other way it would not: what is exported as OCI would be another image, so that is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import msgspec

from podwright.engines.base import Image, Json
from podwright.engines.docker.api import Docker
from podwright.errors import InvalidArgument, NotFound, PodwrightError, Unimplemented
from podwright.images import importing, references
from podwright.images.platform import ARCHITECTURE
from podwright.images.references import LocalSource
from podwright.linux import spawn
from podwright.linux.waiting import to_the_end
from podwright.steps import step

CHUNK = 1 << 20
_LOADED = ("Loaded image: ", "Loaded image ID: ")


async def load(docker: Docker, source: str, reference: str, config: Mapping[str, Json]) -> list[str]:
    """Make images of what is at `source`; their names, or ids of those without. See ImageService."""
    local = references.parse_local(source, "source")
    work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="podwright-load-"))
    try:
        with step("read image", source):
            if local is None:
                kind = await asyncio.to_thread(importing.kind_of, Path(source))
                if kind in ("root", "tar"):
                    name = _name_for(reference)
                    return await _load(docker, await _of_root(Path(source), kind, name, config, work))
                local = LocalSource(kind, source)
            if config:
                raise InvalidArgument("config", f"{local} holds images, which have a configuration already")
            archives = await _of_images(local, reference, work)
        return [name for each in archives for name in await _load(docker, each)]
    finally:
        await to_the_end(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))


async def save(docker: Docker, image: Image, reference: str, target: str) -> int:
    """Write the image to a docker-archive; how many bytes it has. Raises Unimplemented for other forms."""
    place = references.parse_local(target, "target")
    if place is None or place.transport != "docker-archive":
        raise Unimplemented(
            f"target: {target!r}: a Docker Engine gives images away as docker-archive:PATH alone; made into"
            " another form they would be other images, with other ids"
        )
    if references.image_id_prefix(reference) is None:
        names = [str(references.parse(reference))]
    else:
        names = list(image.repo_tags or [image.id])
    path = Path(place.path)
    draft = path.with_name(f".{path.name}.podwright")
    query = "&".join(f"names={each}" for each in names)
    try:
        file = await asyncio.to_thread(draft.open, "wb")
        try:
            with step("write image", str(path)):
                async with docker.response("GET", f"/images/get?{query}") as answer:
                    async for chunk in answer.content.iter_chunked(CHUNK):
                        await asyncio.to_thread(file.write, chunk)
        finally:
            file.close()
        await asyncio.to_thread(draft.rename, path)
    except OSError as error:
        raise InvalidArgument("target", f"{path} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path.stat().st_size


def _name_for(reference: str) -> str:
    if not reference:
        raise InvalidArgument("reference", "is required: a root file system has no name of its own")
    name = references.parse(reference, "reference")
    if name.digest:
        raise InvalidArgument("reference", f"{reference!r}: an import gets a tag, its digest follows")
    return str(name)


async def _of_images(local: LocalSource, reference: str, work: Path) -> list[Path]:
    """A docker-archive of each image that `local` has."""
    found: Mapping[LocalSource, Sequence[str]] = await asyncio.to_thread(importing.images_in, local)
    if reference:
        if len(found) > 1:
            raise InvalidArgument(
                "reference",
                f"{local} holds {len(found)} images: {', '.join(map(str, found))}; name one of them",
            )
        found = {each: [_name_for(reference)] for each in found}
    return [
        await _archived(source, names, work / f"{number}.tar")
        for number, (source, names) in enumerate(found.items())
    ]


async def _archived(source: LocalSource, names: Sequence[str], target: Path) -> Path:
    place = f"docker-archive:{target}" + (f":{names[0]}" if names else "")
    command = ["skopeo", "--insecure-policy", "copy", "--quiet"]
    command += [f"--additional-tag={each}" for each in names[1:]]
    done = await spawn.run([*command, str(source), place])
    if done.status != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise NotFound(f"{source} cannot be read: {words[-1000:]}")
    return target


async def _of_root(source: Path, kind: str, name: str, config: Mapping[str, Json], work: Path) -> Path:
    layer = work / "layer.tar"
    if kind == "root":
        options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name", "--format=pax"]
        await spawn.check(["tar", *options, "-C", str(source), "-cf", str(layer), "."])
    else:
        await to_the_end(asyncio.to_thread(_plain, source, layer))
    return await to_the_end(asyncio.to_thread(_wrapped, layer, name, config, work / "image.tar"))


def _plain(source: Path, target: Path) -> None:
    """The tar, whatever it is compressed by."""
    try:
        with tarfile.open(source, "r:*") as tar, target.open("wb") as out:
            stream: IO[bytes] = tar.fileobj  # type: ignore[assignment]
            stream.seek(0)
            shutil.copyfileobj(stream, out, CHUNK)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise NotFound(f"{source} cannot be read: {error}") from error


def _wrapped(layer: Path, name: str, config: Mapping[str, Json], target: Path) -> Path:
    """An image of one layer as docker-archive."""
    with layer.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    document = msgspec.json.encode(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        },
        order="deterministic",
    )
    own = f"{hashlib.sha256(document).hexdigest()}.json"
    manifest = msgspec.json.encode([{"Config": own, "RepoTags": [name], "Layers": ["layer.tar"]}])
    with tarfile.open(target, "w") as tar:
        for entry_name, content in ((own, document), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(entry_name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
        tar.add(layer, arcname="layer.tar")
    return target


async def _load(docker: Docker, archive: Path) -> list[str]:
    names: list[str] = []
    with step("load image"):
        async with docker.stream("POST", "/images/load", {"quiet": True}, data=_pieces(archive)) as answers:
            async for each in answers:
                if error := each.get("error"):
                    raise PodwrightError(f"Docker cannot load {archive.name}: {error}")
                words = str(each.get("stream", "")).strip()
                names += [words.removeprefix(mark) for mark in _LOADED if words.startswith(mark)]
    return names


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    opened: Any = await asyncio.to_thread(file.open, "rb")
    try:
        while piece := await asyncio.to_thread(opened.read, CHUNK):
            yield piece
    finally:
        opened.close()
