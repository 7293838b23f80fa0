"""A release: one static directory, its sums, and one signature over them; whole at every moment.

It is made in a directory beside, checked there as a stranger would, and takes the old one's place
in one step. What was published under a version stays the same bytes for ever.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.paths import beneath
from pipeline.release import before, check, clients, envelope, keys, names, whole
from pipeline.release.before import PublishError
from pipeline.trust import keyring, sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pipeline.release.contents import Addition, Item
    from pipeline.release.keys import Signing


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a release is published.

    *keep* is how many versions of an image stay, *now* today, *text* the keyring armored (empty:
    the binary one is); a signature of more than *fresh* days is made anew. *more* is added when it
    is known which files stay. *url* is where the directory will be served, with a slash at its end;
    empty: where it was said to be.
    """

    keep: int
    now: datetime
    text: bytes = b""
    fresh: int | None = None
    more: Sequence[Addition] = ()
    url: str = ""


def publish(
    folder: Path,
    new: Sequence[Item],
    signing: Signing | None,
    ring: bytes,
    terms: Terms,
) -> bool:
    """Have *folder* be the release with *new* in it; no if it is already.

    *ring* is the keyring to publish, binary. Raises PublishError, with the release before
    untouched.
    """
    with files.locked(folder.with_name(f".{folder.name}.lock"), mode=0o600):
        _refuse_link(folder)
        whole.finish(folder)
        there = before.read(folder)
        contents = before.contents(new, there, terms.keep)
        for add in terms.more:
            contents = add(contents)
        if ring:
            contents |= {names.KEYRING: ring, names.ARMORED: terms.text or keys.armored(ring)}
        if signing is not None and signing.key.ed25519:
            contents[names.PUBLIC_KEY] = envelope.pem(envelope.public(signing.key.ed25519))
        below = clients.in_folders(contents, there.below)
        url = terms.url or there.url
        known = keyring.read(ring, name=names.KEYRING) if ring else None
        contents |= clients.at_the_top(contents, below, known, url)
        contents[names.INDEX] = _index(contents, url)
        listed = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        told = sums.text(listed)
        if _is_there(folder, told, signing, ring, terms):
            return False
        beside = folder.with_name(f"{folder.name}.new")
        whole.remove(beside)
        _make(beside)
        _write(beside, {**contents, **below})
        files.write(beside / sums.NAME, told)
        if signing is not None:
            files.write(beside / sums.SIGNATURE, signing.sign(told))
        _look(beside, ring if signing is not None else b"", terms.now)
        whole.exchange(beside, folder)
        return True


def _refuse_link(folder: Path) -> None:
    """Of a link, itself would be exchanged, and where it leads would stay as it was."""
    if folder.is_symlink():
        raise PublishError(
            f"{folder} is a symbolic link:",
            ["a release is exchanged whole, and where that leads would not be touched"],
            hint=f"rm {folder}, publish, and copy it to where the link led",
        )


def _make(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)  # a web server reads it; the umask has no say


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Each of *contents* by its path; what has the same bytes is one file, where that can be."""
    written: dict[str, Path] = {}
    for name, content in contents.items():
        path = beneath(folder, name)
        for parent in [*path.relative_to(folder).parents][-2::-1]:
            if not (folder / parent).is_dir():
                _make(folder / parent)
        digest = hashlib.sha256(content).hexdigest()
        if digest in written and _linked(path, written[digest]):
            continue
        files.write(path, content)
        written[digest] = path


def _linked(path: Path, first: Path) -> bool:
    try:
        path.hardlink_to(first)
    except OSError:  # a file system without, or too many of one
        return False
    return True


def _index(contents: Mapping[str, bytes], url: str) -> bytes:
    """release.json: what each versioned file is, so that a client knows what to expect."""
    entries = []
    for name, content in sorted(contents.items()):
        if (named := names.parse(name)) is not None:
            entries.append(
                {
                    "name": name,
                    "image": named.image,
                    "version": named.version,
                    "architecture": named.architecture,
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
    table = {"format": 1, "files": entries, **({"url": url} if url else {})}
    return (json.dumps(table, sort_keys=True, indent=1) + "\n").encode()


def _is_there(
    folder: Path,
    told: bytes,
    signing: Signing | None,
    ring: bytes,
    terms: Terms,
) -> bool:
    """Whether *folder* is that release already, whole and signed by a key that is good."""
    if not files.holds(folder / sums.NAME, told):
        return False
    if signing is None and (folder / sums.SIGNATURE).exists():
        return False
    known = keyring.read(ring, name=names.KEYRING) if signing is not None else None
    return all(
        one.is_right for one in check.directory(folder, known, now=terms.now, fresh=terms.fresh)
    )


def _look(beside: Path, ring: bytes, now: datetime) -> None:
    """Check what is about to be published as a stranger does, with the published keyring."""
    known = keyring.read(ring, name=names.KEYRING) if ring else None
    wrong = [one for one in check.directory(beside, known, now=now) if not one.is_right]
    if wrong:
        raise PublishError(
            "not published, since a stranger would refuse it:",
            (f"{one.name}: {one.found}" for one in wrong),
        )
