"""A release in a registry looked at as a stranger does: nothing of it is trusted but the keyring.

An index is a function of its archives, so it is made of them again: whatever else a registry has
below its name, a configuration with another command, say, is found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import NiftyError, shown, some
from pipeline.image import archive, manifest
from pipeline.net.registry import descriptors, layers
from pipeline.release import names, oci, referrers
from pipeline.release import repository as contents
from pipeline.release.check import Check, CheckError, said
from pipeline.trust import memory, sums
from pipeline.trust.verify import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pipeline.release.repository import Repository
    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed

# Manifests of an index: two for each architecture.
_MOST_MANIFESTS = 2 * len(oci.PLATFORMS)
# Of one document, as release.documents.
_MOST_DOCUMENT = 64 << 20


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was looked at, to be put elsewhere: the index, and what of its release refers to it.

    *index* is None if that is not what is signed.
    """

    signed: Signed | None = None
    index: oci.Index | None = None
    about: list[referrers.Referrer] = field(default_factory=list)


def stored(
    repository: Repository,
    name: str,
    keyring: Keyring,
    *,
    now: datetime,
    fresh: int | None = None,
    seen: Seen | None = None,
) -> Iterator[Check]:
    """Each check of what *name*, a tag or digest, names in *repository*, one after the other.

    As `check.directory`; whatever depends on what is wrong is not looked at. What was is put into
    *seen*.
    """
    seen = seen or Seen()
    try:
        index = contents.top(repository, name)
    except NiftyError as error:
        yield Check(name="index", is_right=False, found=error.message)
        return
    try:
        signed, listed, best = contents.vouched(repository, index, keyring, now)
    except NiftyError as error:
        what = sums.SIGNATURE if isinstance(error, SignatureError) else sums.NAME
        yield Check(name=what, is_right=False, found=error.message)
        return
    seen.signed = signed
    yield Check(name=sums.NAME, is_right=True, found=f"{len(listed)} files")
    found = f"{signed.certificate.title}, {signed.created:%Y-%m-%d %H:%M} UTC"
    yield Check(name=sums.SIGNATURE, is_right=True, found=found)
    if fresh is not None:
        yield said(
            "fresh",
            lambda: memory.check_fresh(signed.created, fresh, now, name=sums.NAME),
            f"signed on {signed.created:%Y-%m-%d}",
        )
    images: list[oci.Image] = []
    yield from _images(repository, index, listed, images)
    yield _made(index, images, seen)
    documents = {sums.NAME: best.content, sums.SIGNATURE: best.signature}
    yield from _documents(repository, index, listed, documents)
    if seen.index is not None:
        seen.about += referrers.of_documents(seen.index, documents)


def _images(
    repository: Repository,
    index: oci.Blob,
    listed: Mapping[str, str],
    images: list[oci.Image],
) -> Iterator[Check]:
    """Each archive of *index*: the one that is signed, an image, and that of its name.

    Those that are right are put into *images*.
    """
    try:
        found = _layers(repository, index)
    except NiftyError as error:
        yield Check(name="index", is_right=False, found=error.message)
        return
    for architecture, of in found.items():
        name = contents.archive_of(listed, of[oci.ZSTD]["digest"].removeprefix("sha256:"))
        if not name:
            told = f"{of[oci.ZSTD]['digest']} is not in {sums.NAME}"
            yield Check(name=f"layer for {architecture}", is_right=False, found=told)
            continue
        try:
            packed = repository.get_blob(of[oci.ZSTD]["digest"], of[oci.ZSTD]["size"])
        except NiftyError as error:
            yield Check(name=name, is_right=False, found=error.message)
            continue
        yield Check(name=name, is_right=True, found=_sized(packed))
        try:
            engines = repository.get_blob(of[oci.GZIP]["digest"], of[oci.GZIP]["size"])
            rootfs = archive.read(packed, name=name)
            inside = manifest.read(rootfs, name=name)
            _agree(inside, names.parse(name), architecture, name)
        except NiftyError as error:
            yield Check(name=f"image {name}", is_right=False, found=error.message)
        else:
            images.append(oci.Image(archive=packed, manifest=inside, engines=engines))
            yield Check(name=f"image {name}", is_right=True, found=f"digest {rootfs.digest}")


def _layers(repository: Repository, index: oci.Blob) -> dict[str, dict[str, dict[str, Any]]]:
    """For each architecture the one layer of each of its two manifests, by media type."""
    every = descriptors(index.content)
    if not 0 < len(every) <= _MOST_MANIFESTS:
        raise CheckError(f"the index names {len(every)} manifests, expected 2 to {_MOST_MANIFESTS}")
    words = {tuple(sorted(one.items())): word for word, one in oci.PLATFORMS.items()}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for one in every:
        platform = one.get("platform")
        told = tuple(sorted(platform.items())) if isinstance(platform, dict) else ()
        architecture = words.get(told)
        several = layers(contents.manifest(repository, one))
        if architecture is None or len(several) != 1:
            raise CheckError(f"{one['digest']}: not one layer for a platform that is known")
        kind = str(several[0].get("mediaType"))
        if found.setdefault(architecture, {}).setdefault(kind, several[0]) is not several[0]:
            raise CheckError(f"{one['digest']}: a second one of its kind for {architecture}")
        if not 0 <= several[0]["size"] <= contents.LARGEST:
            raise CheckError(f"{several[0]['digest']}: {several[0]['size']} bytes: too many")
    for architecture, of in found.items():
        if set(of) != {oci.GZIP, oci.ZSTD}:
            kinds = some(map(shown, of))
            raise CheckError(f"{architecture}: layers of {kinds}, expected gzip and zstd")
    return found


def _agree(
    inside: manifest.Manifest, named: names.Named | None, architecture: str, name: str
) -> None:
    says = (inside.name, inside.version, inside.needs.architecture)
    if named is None or says != (named.image, named.version, named.architecture):
        raise CheckError(f"{name}: its manifest says {shown(' '.join(says), most=100)}")
    if architecture != named.architecture:
        raise CheckError(f"{name}: the index has it for {architecture}")


def _made(index: oci.Blob, images: list[oci.Image], seen: Seen) -> Check:
    def look() -> None:
        made = oci.index(images)
        if made.blob.digest != index.digest:
            told = f"{index.digest} is not what is made of these archives: {made.blob.digest}"
            raise CheckError(told)
        seen.index = made

    told = f"{index.digest}: manifests, configurations and gzip layers are made of these archives"
    return said("index", look, told)


def _documents(
    repository: Repository,
    index: oci.Blob,
    listed: Mapping[str, str],
    documents: dict[str, bytes],
) -> Iterator[Check]:
    """Each file of the release that refers to the index, and how many others do.

    Those that are right are put into *documents*.
    """
    try:
        every = {
            (name, described["digest"].removeprefix("sha256:")): described
            for one in contents.about(repository, index.digest)
            for name, described in contents.documents(repository, one, index.digest).items()
        }
    except NiftyError as error:
        yield Check(name="referrers", is_right=False, found=error.message)
        return
    ours = [one for one in sorted(every) if listed.get(one[0]) == one[1]]
    for name, digest in ours:
        try:
            content = contents.blob(repository, every[name, digest], _MOST_DOCUMENT)
        except NiftyError as error:
            yield Check(name=name, is_right=False, found=error.message)
        else:
            documents[name] = content
            yield Check(name=name, is_right=True, found=_sized(content))
    # a registry keeps what earlier pushes and other people have said of the index
    signed = {sums.NAME, sums.SIGNATURE}
    other = sum(one not in ours and one[0] not in signed for one in every)
    told = f"{other} other documents refer to it; they are not this release's"
    yield Check(name="nothing else", is_right=True, found=told if other else "no other documents")


def _sized(content: bytes) -> str:
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"
