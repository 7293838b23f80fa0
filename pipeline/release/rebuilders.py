"""Who built a release again and says so: signatures of theirs over its provenance, counted.

A statement is the same bytes for everybody who signs it, so one envelope takes all signatures. It
counts whose they are: a certificate once, and a key once, however many signatures it has made.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, reason, shown
from pipeline.program import to_type
from pipeline.release import envelope, names
from pipeline.release.envelope import Envelope, EnvelopeError
from pipeline.trust import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pipeline.trust.keyring import Certificate, Keyring


class RebuildersError(NiftyError):
    """Too few of who is trusted to build again have done so, or a file that is none of theirs."""


def signers(
    payload: bytes, envelopes: Iterable[Envelope], ring: Keyring, now: datetime
) -> dict[Certificate, tuple[str, bytes]]:
    """Those of *ring* with a signature over *payload* in one of *envelopes*: key id and signature.

    Their key is good at *now*. No two of them have signed with the same key.
    """
    made = [
        Envelope(payload=payload, signatures=(one,))
        for other in envelopes
        if other.payload == payload
        for one in other.signatures
    ]
    found: dict[Certificate, tuple[str, bytes]] = {}
    counted: set[object] = set()
    for certificate in ring.certificates:
        for key in certificate.signers:
            raw = key.ed25519
            if raw is None or counted & {raw, certificate.fingerprint}:
                continue
            if certificate.refusal(key, now) is not None:
                continue
            public = envelope.public(raw)
            good = next((one for one in made if one.signed_by([public])), None)
            if good is not None:
                found[certificate] = (envelope.key_id(public), good.signatures[0][1])
                counted |= {raw, certificate.fingerprint}
    return found


def check(
    payload: bytes, envelopes: Iterable[Envelope], ring: Keyring, need: int, now: datetime
) -> str:
    """Who they are, if *need* of *ring* have signed *payload*. Raises RebuildersError."""
    found = signers(payload, envelopes, ring, now)
    told = ", ".join(one.title for one in found) or "nobody"
    if len(found) < need:
        raise RebuildersError(
            f"built again by {len(found)} of {shown(ring.name)}, {need} are needed: {told}",
            hint="rebuilt=FILE,… for what rebuilders publish themselves",
        )
    return f"{len(found)} of {need} needed: {told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Who of *ring* must have built again: *need* of them, in the release itself or in *others*."""

    ring: Keyring
    need: int
    others: Sequence[Envelope]
    now: datetime

    def check(self, file: str, listed: Mapping[str, str], read: Callable[[str], bytes]) -> str:
        """Who they are, that have built *file* again, one of *listed*, the sums that are signed.

        *read* gives a file of the release, of at most envelope.LIMIT bytes. Raises NiftyError.
        """
        named = names.parse(file)
        name = f"{named.image}_{named.version}.{names.PROVENANCE}" if named else ""
        if name not in listed:
            raise RebuildersError(f"the release has no provenance of {file}")
        content = read(name)
        if hashlib.sha256(content).hexdigest() != listed[name]:
            raise RebuildersError(f"{name}: not the one whose sum is signed")
        there = envelope.read(content)
        if envelope.subjects(there.payload).get(file) != listed[file]:
            raise RebuildersError(f"{name}: is about another {file}")
        return check(there.payload, [there, *self.others], self.ring, self.need, self.now)


def newest(listed: Iterable[str]) -> list[str]:
    """The names of the provenance of each image's newest version."""
    found = {
        name: named
        for name in listed
        if (named := names.parse(name)) and named.ending == names.PROVENANCE
    }
    images = {named.image for named in found.values()}
    return sorted(
        max(
            (name for name, named in found.items() if named.image == image),
            key=lambda name: memory.order(found[name].version),
        )
        for image in images
    )


def read(paths: Sequence[str]) -> list[Envelope]:
    """The envelopes in the files *paths*. Raises RebuildersError."""
    found = []
    for path in paths:
        try:
            # the path is the user's own
            content = files.read(os.path.realpath(path), limit=envelope.LIMIT)
            found.append(envelope.read(content))
        except (OSError, EnvelopeError) as error:
            told = error.strerror if isinstance(error, OSError) else error.message
            raise RebuildersError(
                f"{path}: {told}",
                hint=f"a file NAME.{names.PROVENANCE}, as "
                f"'{to_type('verify rebuild=yes to=FOLDER')}' makes it",
            ) from error
    return found


def merged(
    contents: Mapping[str, bytes], others: Sequence[Envelope], ring: Keyring, now: datetime
) -> dict[str, bytes]:
    """*contents*, of a release, with signatures of *ring* that *others* have over its provenance.

    Raises RebuildersError for one that has none of them, or is about another release.
    """
    made = dict(contents)
    there = {name: envelope.read(made[name]) for name in newest(made)}
    for other in others:
        name = next((key for key, one in there.items() if one.payload == other.payload), None)
        if name is None:
            raise RebuildersError(
                "a rebuilder's file is about other files than this release has",
                hint="publish with the commit that it was published with when they built it again: "
                "its source and provenance are of that",
            )
        found = signers(other.payload, [other], ring, now)
        if not found:
            raise RebuildersError(f"a rebuilder's file is signed by nobody in {shown(ring.name)}")
        signatures = {**dict(envelope.read(made[name]).signatures), **dict(found.values())}
        made[name] = envelope.envelope(other.payload, [], signatures)
    return made


def write(folder: Path, name: str, content: bytes) -> Path:
    """Put a rebuilder's envelope, *content*, into *folder* as *name*. Raises RebuildersError."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.put(path, content)
    except OSError as error:
        told = reason(error, path)
        raise RebuildersError(told, hint="to=FOLDER, one that you may write to") from error
    return path
