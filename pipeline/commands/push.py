"""`doit push`: what was built goes to a registry, with the documents that were published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.commands.places import ARTIFACTS, RELEASE, artifacts
from pipeline.commands.tables import print_json, print_table
from pipeline.errors import NiftyError, UsageError
from pipeline.image import archive, manifest
from pipeline.net import login, reference
from pipeline.net.registry import Registry
from pipeline.progress import bar, say
from pipeline.release import documents, oci, referrers, registry
from pipeline.settings import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.net.reference import Reference
    from pipeline.release.oci import Image, Index
    from pipeline.release.referrers import Referrer
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Push the image for every architecture it is built for, or for arch= alone."""
    to, tags = _target(settings)
    images = _images(settings)
    made = oci.index(images)
    about = referrers.of_documents(made, documents.of_release(RELEASE, images))
    tags = tags or (made.version,)
    if not all(map(reference.is_tag, tags)):
        raise NiftyError(f"{made.version}: a version that cannot be a tag", hint="tag=...")
    if not settings.dry:
        _push(settings, to, made, about, tags)
    _show(settings, to, made, about, tags)


def _target(settings: Settings) -> tuple[Reference, tuple[str, ...]]:
    if not settings.to:
        raise UsageError("to= is missing", hint="doit push to=oci://registry.example.org/nifty")
    to = reference.parse(settings.to)
    if to.digest:
        raise UsageError(f"to={settings.to}: what is pushed has its own digest: leave it out")
    if to.tag and settings.tag:
        raise UsageError(f"to={settings.to} and tag= both name a tag: give one")
    return to, (to.tag,) if to.tag else settings.tag


def _images(settings: Settings) -> list[Image]:
    wanted = (settings.arch,) if "arch" in settings.given else ARCHITECTURES
    built = [
        path
        for arch in wanted
        if (path := ARTIFACTS / f"{settings.image}-{arch}.tar.zst").is_file()
    ]
    if not built:
        raise NiftyError(f"{artifacts(settings)[0]}: not built yet", hint="doit build")
    return [_image(path) for path in built]


def _image(path: Path) -> Image:
    try:
        content = files.read(path, limit=archive.DEFAULT_LIMITS.max_bytes)
    except OSError as error:
        raise NiftyError(f"{path}: {error.strerror}", hint="doit build") from error
    return oci.Image(archive=content, manifest=manifest.read(archive.read(content), name=str(path)))


def _push(
    settings: Settings,
    to: Reference,
    made: Index,
    about: tuple[Referrer, ...],
    tags: tuple[str, ...],
) -> None:
    who = login.find(to.host, to.name)
    with (
        bar(f"pushing to {to.host}", registry.size(made, about), unit="bytes") as step,
        Registry(to, login=who, writes=True) as repository,
    ):
        done = registry.push(repository, made, about, tags, overwrite=settings.overwrite, step=step)
    moved = f"; {', '.join(done.moved)} set" if done.moved else ""
    say(f"{done.sent} sent, {done.there} were there{moved}")


def _show(
    settings: Settings,
    to: Reference,
    made: Index,
    about: tuple[Referrer, ...],
    tags: tuple[str, ...],
) -> None:
    place = f"{reference.SCHEME}{to.host}/{to.name}"
    if settings.format == "json":
        print_json(
            {
                "repository": place,
                "tags": tags,
                "digest": made.blob.digest,
                "manifests": [_entry(entry) for entry in made.entries],
                "referrers": [dict(one.descriptor) for one in about],
            }
        )
        return
    rows = [(f"{place}@{made.blob.digest}", "index", ", ".join(tags))]
    rows += [
        (told["digest"], told["architecture"], f"{told['layer']['mediaType']}")
        for told in map(_entry, made.entries)
    ]
    rows += [(one.manifest.digest, "about it", one.descriptor["artifactType"]) for one in about]
    print_table(("digest", "what", "type"), rows)


def _entry(entry: oci.Entry) -> dict[str, Any]:
    return {
        "architecture": entry.architecture,
        "digest": entry.manifest.digest,
        "layer": entry.layer.descriptor(),
    }
