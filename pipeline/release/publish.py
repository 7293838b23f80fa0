"""A release: one static directory, its sums, and one signature over them; whole at every moment.

It is made in a directory beside, checked there as a stranger would, and takes the old one's place
in one step. What was published under a version stays the same bytes for ever.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import NiftyError, ProblemsError
from pipeline.image import archive
from pipeline.release import check, envelope, keys, names
from pipeline.trust import keyring, memory, sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pipeline.release.contents import Addition, Item
    from pipeline.release.keys import Signing


class PublishError(ProblemsError):
    """A release that cannot be made; the one before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a release is published.

    *keep* is how many versions of an image stay, *now* today, *text* the keyring armored (empty: as
    it is published in binary); a signature of more than *fresh* days
    is made anew. *more* is added when it is known which files stay.
    """

    keep: int
    now: datetime
    text: bytes = b""
    fresh: int | None = None
    more: Sequence[Addition] = ()


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
        _finish(folder)
        old = _old(folder)
        contents = _contents(new, old, folder, terms.keep)
        for add in terms.more:
            contents = add(contents)
        if ring:
            contents |= {names.KEYRING: ring, names.ARMORED: terms.text or keys.armored(ring)}
        if signing is not None and signing.key.ed25519:
            contents[names.PUBLIC_KEY] = envelope.pem(envelope.public(signing.key.ed25519))
        contents[names.INDEX] = _index(contents)
        listed = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        told = sums.text(listed)
        if _is_there(folder, told, signing, ring, terms):
            return False
        beside = folder.with_name(f"{folder.name}.new")
        _remove(beside)
        beside.mkdir()
        beside.chmod(0o755)  # a web server reads it; the umask has no say
        for name, content in contents.items():
            files.write(beside / name, content)
        files.write(beside / sums.NAME, told)
        if signing is not None:
            files.write(beside / sums.SIGNATURE, signing.sign(told))
        _look(beside, ring if signing is not None else b"", terms.now)
        files.sync(beside)
        _swap(beside, folder)
        _remove(beside)
        return True


def _refuse_link(folder: Path) -> None:
    """Of a link, itself would be exchanged, and where it leads would stay as it was."""
    if folder.is_symlink():
        raise PublishError(
            f"{folder} is a symbolic link:",
            ["a release is exchanged whole, and where that leads would not be touched"],
            hint=f"rm {folder}, publish, and copy it to where the link led",
        )


def _finish(folder: Path) -> None:
    """What `_swap` was killed in, where it takes two steps."""
    kept = folder.with_name(f"{folder.name}.old")
    if kept.is_dir() and not folder.exists():
        kept.rename(folder)
    _remove(kept)


def _old(folder: Path) -> dict[str, str]:
    """The sums of the release that is there; none if none is."""
    if not folder.exists():
        return {}
    try:
        return sums.read(files.read(folder / sums.NAME, limit=sums.LIMIT))
    except (OSError, NiftyError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise PublishError(
            f"{folder}: no release that this program made:",
            [f"{told}"],
            hint=f"move it away: mv {folder} {folder}.away",
        ) from error


def _contents(
    new: Sequence[Item], old: Mapping[str, str], folder: Path, keep: int
) -> dict[str, bytes]:
    """Every versioned file of the next release: *new*, and what stays of the *old* one."""
    contents = {item.name: item.content for item in new}
    problems = [
        f"{item.name}: published with the sha256 {old[item.name]}, "
        f"now {hashlib.sha256(item.content).hexdigest()}"
        for item in new
        if item.is_fixed
        and item.name in old
        and old[item.name] != hashlib.sha256(item.content).hexdigest()
    ]
    if problems:
        raise PublishError(
            "a version that is published is never changed:",
            problems,
            hint="give the image's recipe another version=",
        )
    for name in _staying([*contents, *old], keep) - contents.keys():
        try:
            content = files.read(folder / name, limit=archive.DEFAULT_LIMITS.max_bytes)
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if hashlib.sha256(content).hexdigest() != old[name]:
            problems.append(f"{name}: not the bytes that were published")
        contents[name] = content
    if problems:
        raise PublishError(f"{folder}: the release that is there is damaged:", problems)
    return contents


def _staying(all_names: Iterable[str], keep: int) -> set[str]:
    """Those of *all_names* that belong to the newest *keep* versions of their image."""
    named = {name: found for name in all_names if (found := names.parse(name))}
    versions: dict[str, set[str]] = {}
    for one in named.values():
        versions.setdefault(one.image, set()).add(one.version)
    newest = {image: sorted(found, key=memory.order)[-keep:] for image, found in versions.items()}
    return {name for name, one in named.items() if one.version in newest[one.image]}


def _index(contents: Mapping[str, bytes]) -> bytes:
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
    return (json.dumps({"format": 1, "files": entries}, sort_keys=True, indent=1) + "\n").encode()


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


def _swap(beside: Path, folder: Path) -> None:
    """*beside* takes *folder*'s place and the other way round, in one step if there is a way."""
    if not folder.exists():
        beside.rename(folder)
    elif not files.exchanged(beside, folder):
        kept = folder.with_name(f"{folder.name}.old")
        folder.rename(kept)
        beside.rename(folder)
        kept.rename(beside)
    files.sync_folder(folder.parent)


def _remove(path: Path) -> None:
    with trees.opened(path.parent) as parent:
        trees.remove(parent, path.name)
