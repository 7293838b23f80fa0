"""`doit publish`: what was built becomes a signed release, a directory for any web server."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files, terminal
from pipeline.builder.sources.store import Store
from pipeline.commands import pyz
from pipeline.commands.places import ARTIFACTS, ENDINGS, RELEASE, STORE
from pipeline.commands.recipes import load
from pipeline.errors import NiftyError, UsageError, some
from pipeline.image import archive, manifest
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.release import builders, keys, names, rebuilders
from pipeline.release.contents import Built, Workshop, items, of_all
from pipeline.release.publish import Terms, publish
from pipeline.settings import ARCHITECTURES
from pipeline.trust import keyring, sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipeline.release.contents import Addition
    from pipeline.release.keys import Signing
    from pipeline.settings import Settings
    from pipeline.trust.keyring import Keyring


def run(settings: Settings) -> None:
    """Publish every architecture of the image that is built in the same version."""
    now = datetime.now(UTC)
    known = None if settings.unsigned else _keyring(settings)
    signing = _signing(settings, known, now)
    several = [one for arch in ARCHITECTURES if (one := built(settings.image, arch))]
    ring = text = b""
    if signing is not None:
        ring = signing.certificate.binary if known is None else known.without_revoked
        text = keys.armored(ring if known is None else known.binary)
        if warning := signing.warning(now):
            say(f"warning: {warning}")
    recipes = load()
    shop = Workshop(
        recipes=recipes,
        store=Store(root=STORE),
        project=PROJECT,
        builder=builders.builder(os.environ, PROJECT),
        key=_provenance_key(signing),
    )
    is_new = publish(
        RELEASE,
        items(several, recipes),
        signing,
        ring,
        Terms(
            keep=settings.keep,
            now=now,
            text=text,
            fresh=settings.fresh,
            more=[of_all(several, shop), *_rebuilt(settings, now), *_programs(settings)],
            url=settings.url,
        ),
    )
    if not is_new:
        say(f"{RELEASE}: published already, nothing to do")
    elif signing is None:
        say("not signed: nobody can tell whether it is yours")
    else:
        say(f"signed by {signing.certificate.title}, key {signing.key.fingerprint}")
        say(f"to a server: all files first, then {sums.NAME}, {sums.SIGNATURE} last")
    terminal.lines(*(str(path) for path in sorted(RELEASE.rglob("*")) if path.is_file()))


def _rebuilt(settings: Settings, now: datetime) -> Iterator[Addition]:
    """Puts the signatures of rebuilt= into the provenance: those of rebuilders=, of nobody else."""
    if not settings.rebuilt:
        return
    if not settings.rebuilders:
        raise UsageError("rebuilt by whom?", hint="rebuilders=FILE, the keyring with their keys")
    ring = keyring.load(Path(settings.rebuilders))
    others = rebuilders.read(settings.rebuilt)
    yield lambda contents: rebuilders.merged(contents, others, ring, now)


def _programs(settings: Settings) -> Iterator[Addition]:
    """Adds the files of `doit pyz` for python=, made anew."""
    if not settings.python:
        return
    found = {path.name: path.read_bytes() for path in pyz.made(settings)}
    yield lambda contents: {**contents, **found}


def _provenance_key(signing: Signing | None) -> Ed25519PrivateKey | None:
    if signing is None:
        return None
    key = signing.ed25519()
    if key is None:
        say(f"no {names.PROVENANCE}: provenance is signed by an ed25519 key, which this is not")
    return key


def _signing(settings: Settings, known: Keyring | None, now: datetime) -> Signing | None:
    if settings.unsigned:
        if settings.key:
            raise UsageError("key= and unsigned=yes contradict each other")
        return None
    found = keys.given(settings.key, os.environ)
    if found is None:
        raise UsageError(
            "signed with which key?",
            hint=f"key=FILE or {keys.VARIABLE} in the environment; "
            "doit key new=yes makes one; unsigned=yes does without",
        )
    return keys.load(*found, os.environ, now, ring=known)


def _keyring(settings: Settings) -> Keyring | None:
    """What is published as the keyring: keyring=, else what is published already; None: the key's.

    Raises NiftyError for one that takes a revocation back.
    """
    path = RELEASE / names.ARMORED  # the other one is without what is revoked
    there = keyring.load(path) if path.exists() else None
    if not settings.keyring:
        return there
    ring = keyring.load(Path(settings.keyring))
    if there is not None and (lost := [*_taken_back(there, ring)]):
        raise NiftyError(
            f"{settings.keyring}: older than the keyring that is published: "
            f"there {some(lost)} is revoked",
            hint=f"begin with that: doit key … keyring={path}",
        )
    return ring


def _taken_back(old: Keyring, new: Keyring) -> Iterator[str]:
    """Fingerprints of the keys that are revoked in *old* and not in *new*."""
    for one in old.certificates:
        for key in (one.primary, *one.subkeys):
            found = new.find(key.fingerprint)
            if key.is_revoked and found is not None and not found[1].is_revoked:
                yield key.fingerprint


def built(image: str, architecture: str) -> Built | None:
    """The image as the build left it; None if it was not built for *architecture*."""
    stem = f"{image}-{architecture}"
    paths = {ending: ARTIFACTS / f"{stem}{ending}" for ending in ENDINGS}
    if not all(path.is_file() for path in paths.values()):
        return None
    contents = {
        ending: files.read(path, limit=archive.DEFAULT_LIMITS.max_bytes)
        for ending, path in paths.items()
    }
    table = json.loads(contents[".json"])
    for one in table["archives"]:
        ending = one["file"].removeprefix(stem)
        if hashlib.sha256(contents[ending]).hexdigest() != one["sha256"]:
            raise NiftyError(f"{paths[ending]}: not what was built", hint="doit build")
    rootfs = archive.read(contents[".tar.zst"])
    return Built(
        manifest=manifest.read(rootfs, name=str(paths[".tar.zst"])),
        digest=table["digest"],
        tar_sha256=table["tar"]["sha256"],
        contents={ending[1:]: content for ending, content in contents.items()},
    )
