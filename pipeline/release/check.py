"""A release looked at as a stranger does: what is signed, by whom, and whether all of it is there.

Nothing in the directory is trusted, the keyring least: that comes from the caller.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import NiftyError, shown, some
from pipeline.image import archive, manifest
from pipeline.image.rootfs import File
from pipeline.paths import beneath
from pipeline.release import envelope, names
from pipeline.trust import memory, sums, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from datetime import datetime

    from pipeline.image.rootfs import Rootfs
    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed

# Bytes of the largest file that is looked at; archives have a limit of their own besides.
LARGEST = 1 << 30
_INDEX_LIMIT = 1 << 20
_ARCHIVES = ("tar.zst", "tar.xz")
# what stands beside without a sum: it holds the sums, or signs them
_APART = (sums.NAME, sums.SIGNATURE)


class CheckError(NiftyError):
    """A release that is not what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at, whether it is right, and what was found."""

    name: str
    is_right: bool
    found: str


def index(content: bytes) -> dict[str, dict[str, Any]]:
    """What release.json says of each file. Raises CheckError."""
    try:
        table = json.loads(content)
        listed = {entry["name"]: entry for entry in table["files"]}
        known = table["format"] == 1 and all(type(one["size"]) is int for one in listed.values())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = shown(str(error), most=100)
        raise CheckError(f"{names.INDEX}: cannot be used: {told}") from error
    if not known:
        raise CheckError(f"{names.INDEX}: of another format than this program reads")
    return listed


def directory(
    folder: Path,
    keyring: Keyring | None,
    *,
    now: datetime,
    fresh: int | None = None,
    bring: Callable[[str], None] = lambda _name: None,
) -> Iterator[Check]:
    """Each check of the release in *folder*, one after the other; without *keyring* none is signed.

    With *fresh* a signature may be so many days old. Whatever depends on what is wrong is not
    looked at. *bring* is called with each file's name before it is looked at: nothing that is not
    signed is brought from elsewhere; it raises NiftyError.
    """
    try:
        bring(sums.NAME)
        content = _read(folder / sums.NAME, sums.LIMIT)
        listed = sums.read(content)
    except NiftyError as error:
        yield Check(name=sums.NAME, is_right=False, found=error.message)
        return
    yield Check(name=sums.NAME, is_right=True, found=f"{len(listed)} files")
    if keyring is not None:
        check, signed = _signature(folder, content, keyring, now, bring)
        yield check
        if signed is None:
            return
        if fresh is not None:
            yield said(
                "fresh",
                lambda: memory.check_fresh(signed.created, fresh, now, name=sums.NAME),
                f"signed on {signed.created:%Y-%m-%d}",
            )
    whole = []
    for name, digest in listed.items():
        check = _file(folder, name, digest, bring)
        whole += [name] if check.is_right else []
        yield check
    below = yield from _folders(folder, whole, bring)
    yield _nothing_else(folder, {**listed, **below})
    if names.INDEX in whole:
        yield _index(folder, listed)
    for name in whole:
        if (named := names.parse(name)) and named.ending == names.PROVENANCE:
            yield _provenance(folder / name, named, listed, keyring, now)
    yield from _images(folder, whole)


def _read(path: Path, limit: int) -> bytes:
    try:
        return files.read(path, limit=limit)
    except OSError as error:
        raise CheckError(f"{path.name}: {error.strerror}") from error


def said(name: str, look: Callable[[], object], found: str) -> Check:
    """What *look* raises is wrong; else *found* is what was found."""
    try:
        look()
    except NiftyError as error:
        return Check(name=name, is_right=False, found=error.message)
    return Check(name=name, is_right=True, found=found)


def _signature(
    folder: Path, content: bytes, keyring: Keyring, now: datetime, bring: Callable[[str], None]
) -> tuple[Check, Signed | None]:
    try:
        bring(sums.SIGNATURE)
        signature = _read(folder / sums.SIGNATURE, verify.LIMIT)
        signed = verify.verify(content, signature, keyring, name=sums.NAME, now=now)
    except NiftyError as error:
        return Check(name=sums.SIGNATURE, is_right=False, found=error.message), None
    found = f"{signed.certificate.title}, {signed.created:%Y-%m-%d %H:%M} UTC"
    return Check(name=sums.SIGNATURE, is_right=True, found=found), signed


def _file(folder: Path, name: str, digest: str, bring: Callable[[str], None]) -> Check:
    try:
        bring(name)
        descriptor = os.open(
            beneath(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                return Check(name=name, is_right=False, found="not a regular file")
            size = state.st_size
            if size > LARGEST:
                return Check(name=name, is_right=False, found=f"{size} bytes: too many")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except NiftyError as error:
        return Check(name=name, is_right=False, found=error.message)
    except OSError as error:
        return Check(name=name, is_right=False, found=f"{error.strerror}")
    if found != digest:
        told = f"has the sha256 {found}, not {digest}"
        return Check(name=name, is_right=False, found=told)
    return Check(name=name, is_right=True, found=f"{size} bytes, sha256 {found}")


def _folders(
    folder: Path, whole: list[str], bring: Callable[[str], None]
) -> Generator[Check, None, dict[str, str]]:
    """Each folder as a whole, and whatever is wrong in it by itself; the sums of all."""
    if names.FOLDERS not in whole:
        return {}
    try:
        content = _read(folder / names.FOLDERS, sums.LIMIT)
        below = sums.read(content, name=names.FOLDERS, below=True)
    except NiftyError as error:
        yield Check(name=names.FOLDERS, is_right=False, found=error.message)
        return {}
    tops: dict[str, list[str]] = {}
    for name in below:
        tops.setdefault(name.partition("/")[0], []).append(name)
    for top, inside in sorted(tops.items()):
        wrong = []
        for name in inside:
            check = _file(folder, name, below[name], bring)
            wrong += [] if check.is_right else [check]
        yield from wrong
        if not wrong:
            told = f"{len(inside)} files as {names.FOLDERS} says"
            yield Check(name=f"{top}/", is_right=True, found=told)
    return below


def _nothing_else(folder: Path, listed: Mapping[str, str]) -> Check:
    there: list[str] = []

    def unread(error: OSError) -> None:
        there.append(os.path.relpath(error.filename, folder))

    for top, folders, found in os.walk(folder, onerror=unread):  # which follows no link
        path = Path(top).relative_to(folder)
        links = [name for name in folders if (folder / path / name).is_symlink()]
        there += [(path / name).as_posix() for name in (*found, *links)]
        if not folders and not found:
            there.append(f"{path}/")
    other = [name for name in sorted(there) if name not in listed and name not in _APART]
    if other:
        told = f"not in {sums.NAME}: {some(map(shown, other))}"
        return Check(name="nothing else", is_right=False, found=told)
    return Check(name="nothing else", is_right=True, found=f"all files are in {sums.NAME}")


def _index(folder: Path, listed: Mapping[str, str]) -> Check:
    def look() -> None:
        said = index(_read(folder / names.INDEX, _INDEX_LIMIT))
        if strange := [name for name in said if name not in listed]:
            told = some(shown(str(name), most=80) for name in strange)
            raise CheckError(f"{names.INDEX}: names what {sums.NAME} does not: {told}")
        wrong = [
            name
            for name, entry in said.items()
            if entry.get("sha256") != listed.get(name)
            or entry["size"] != (folder / name).stat().st_size
        ]
        unsaid = [name for name in listed if names.parse(name) and name not in said]
        if wrong or unsaid:
            raise CheckError(f"{names.INDEX}: not as the files: {some([*wrong, *unsaid])}")

    try:
        return said(names.INDEX, look, "names, sizes and sums agree")
    except OSError as error:
        return Check(name=names.INDEX, is_right=False, found=f"{error.strerror}")


def _provenance(
    path: Path,
    named: names.Named,
    listed: Mapping[str, str],
    keyring: Keyring | None,
    now: datetime,
) -> Check:
    """A statement about all files of its version, signed by a key of *keyring* that is good."""
    name = f"provenance {path.name}"
    try:
        there = envelope.read(_read(path, envelope.LIMIT))
        found = f"about {_about(there.payload, named, listed)} files"
        if keyring is not None:
            signed = there.signed_by(envelope.public(raw) for raw in _good(keyring, now))
            if not signed:
                raise CheckError(f"no signature of a key in {keyring.name} that is good")
            found += f", signed by {', '.join(map(envelope.key_id, signed))}"
    except NiftyError as error:
        return Check(name=name, is_right=False, found=error.message)
    return Check(name=name, is_right=True, found=found)


def _about(payload: bytes, named: names.Named, listed: Mapping[str, str]) -> int:
    """How many files the statement *payload* is about: all of the version's, as they are."""
    about = {
        name: digest
        for name, digest in listed.items()
        if (other := names.parse(name)) and other.ending != names.PROVENANCE
        if (other.image, other.version) == (named.image, named.version)
    }
    said = envelope.subjects(payload)
    if said != about:
        wrong = {name for name in said | about if said.get(name) != about.get(name)}
        told = some(shown(name, most=80) for name in sorted(wrong))
        raise CheckError(f"is not about the files of its version as they are: {told}")
    return len(said)


def _good(keyring: Keyring, now: datetime) -> Iterator[bytes]:
    """The ed25519 keys of *keyring* that may sign at *now*."""
    for certificate in keyring.certificates:
        for key in certificate.signers:
            if key.ed25519 and certificate.refusal(key, now) is None:
                yield key.ed25519


def _images(folder: Path, whole: list[str]) -> Iterator[Check]:
    """Each archive is an image, that of its manifest, and in both forms the same one."""
    digests: dict[str, str] = {}
    for name in whole:
        named = names.parse(name)
        if named is None or named.ending not in _ARCHIVES or not named.architecture:
            continue
        stem = name.removesuffix(f".{named.ending}")
        try:
            rootfs = archive.read(folder / name)
            _agree(rootfs, named, folder / f"{stem}.json", name)
            if digests.setdefault(stem, rootfs.digest) != rootfs.digest:
                raise CheckError(f"{name}: another image than {stem}'s other archive")
        except NiftyError as error:
            told = error.message.replace(f"{folder}/", "")
            yield Check(name=f"image {name}", is_right=False, found=told)
        else:
            yield Check(name=f"image {name}", is_right=True, found=f"digest {rootfs.digest}")


def _agree(rootfs: Rootfs, named: names.Named, described: Path, name: str) -> None:
    inside = manifest.read(rootfs, name=name)
    says = (inside.name, inside.version, inside.needs.architecture)
    if says != (named.image, named.version, named.architecture):
        raise CheckError(f"{name}: its manifest says {shown(' '.join(says), most=100)}")
    try:
        beside = json.loads(_read(described, archive.DEFAULT_LIMITS.max_bytes))
        # as it stands in the image: of an older format the model would write another one
        entry = rootfs.find(manifest.PATH)
        lies = json.loads(entry.content) if isinstance(entry, File) else None
        same = beside["digest"] == rootfs.digest and beside["manifest"] == lies
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckError(f"{described.name}: cannot be used") from error
    if not same:
        raise CheckError(f"{name}: not the image that {described.name} describes")
