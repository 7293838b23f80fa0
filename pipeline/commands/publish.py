"""`doit publish`: what was built becomes a signed release, a directory for any web server."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files, terminal
from pipeline.commands.places import ARTIFACTS, ENDINGS, RELEASE
from pipeline.commands.recipes import load
from pipeline.errors import NiftyError, UsageError
from pipeline.image import archive, manifest
from pipeline.progress import say
from pipeline.release import keys
from pipeline.release.publish import Built, items, publish
from pipeline.settings import ARCHITECTURES
from pipeline.trust import keyring, sums

if TYPE_CHECKING:
    from pipeline.release.keys import Signing
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Publish every architecture of the image that is built in the same version."""
    now = datetime.now(UTC)
    signing = _signing(settings, now)
    several = [one for arch in ARCHITECTURES if (one := built(settings.image, arch))]
    ring = b""
    if signing is not None:
        ring = _ring(settings, signing)
        if warning := signing.warning(now):
            say(f"warning: {warning}")
    text = keys.armored(ring) if ring else b""
    given = items(several, load())
    is_new = publish(
        RELEASE, given, signing, ring, keep=settings.keep, now=now, text=text, fresh=settings.fresh
    )
    if not is_new:
        say(f"{RELEASE}: published already, nothing to do")
    elif signing is None:
        say("not signed: nobody can tell whether it is yours")
    else:
        say(f"signed by {signing.certificate.title}, key {signing.key.fingerprint}")
        say(f"to a server: all files first, then {sums.NAME}, {sums.SIGNATURE} last")
    terminal.lines(*(str(path) for path in sorted(RELEASE.iterdir())))


def _signing(settings: Settings, now: datetime) -> Signing | None:
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
    return keys.load(*found, os.environ, now)


def _ring(settings: Settings, signing: Signing) -> bytes:
    """What is published as the keyring: keyring=, which must hold the key, or the key's own."""
    if not settings.keyring:
        return signing.certificate.binary
    ring = keyring.load(Path(settings.keyring))
    found = ring.find(signing.key.fingerprint)
    if found is None:
        raise NiftyError(
            f"{settings.keyring}: does not hold the signing key {signing.key.fingerprint}",
            hint="nobody who has that keyring could verify what it signs: add its certificate",
        )
    if why := found[0].refusal(found[1], datetime.now(UTC)):
        raise NiftyError(f"{settings.keyring}: {why}")
    return ring.binary


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
