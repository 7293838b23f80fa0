"""Images on this host: the archive as given, and what is kept of it for its instances."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import NiftyError, reason
from pipeline.host.binds import dropins
from pipeline.host.binds.dropins import Bound
from pipeline.host.roots import access, identity, shared
from pipeline.host.state import kept
from pipeline.host.state.batch import Batch
from pipeline.host.state.records import Share
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.image.archive import Limits
from pipeline.image.rootfs import Directory, Entry, File, Rootfs

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.roots.access import Access
    from pipeline.host.roots.identity import Blank
    from pipeline.host.state.layout import Layout
    from pipeline.image.manifest import Manifest


NOTHING = Bound()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A root filesystem, its manifest, the archive with both, and the digest that names it here.

    *blank* are its files that deploy fills in, *bound* is what this host gives to its drop-ins.
    """

    rootfs: Rootfs
    manifest: Manifest
    archive: bytes
    digest: str
    blank: Blank
    bound: Bound = NOTHING

    @property
    def login(self) -> str:
        """The first account that may log in; empty if there is none."""
        accounts = self.manifest.ssh.accounts
        return accounts[0].name if accounts else ""


def load(path: Path) -> Image:
    """The image in the archive *path*, whoever made it.

    Raises ArchiveError or ManifestError for what is no image, ImageError for one that is not for
    this machine.
    """
    packed = archive.content(path)
    return _checked(_read(packed, str(path)), packed, str(path))


def unpacked(packed: bytes, *, name: str) -> Image:
    """The image in the archive *packed*, as `load`; *name* for errors."""
    try:
        rootfs = _read(packed, "archive")
    except archive.ArchiveError as error:
        raise kept.ImageError(f"{name}: {error.message}") from error
    return _checked(rootfs, packed, name)


def _read(packed: bytes, name: str) -> Rootfs:
    """What is in *packed*, which is kept: the limit is for both, since both are in memory."""
    most = archive.DEFAULT_LIMITS.max_bytes - len(packed)
    return archive.read(packed, limits=Limits(max_bytes=most), name=name)


def _checked(rootfs: Rootfs, packed: bytes, name: str) -> Image:
    manifest = manifests.read(rootfs, name=name)
    machine = os.uname().machine
    if manifest.needs.architecture != machine:
        raise kept.ImageError(
            f"{name}: made for {manifest.needs.architecture}, this machine is {machine}",
            hint=f"one of its release for {machine}, or in a checkout: doit build arch={machine}",
        )
    for part in manifest.shared:
        # only the one that an instance's unit binds
        if part != "cbin":
            raise kept.ImageError(
                f"{name}: /{part} is to be shared; this program shares /cbin only"
            )
    return Image(
        rootfs=rootfs,
        manifest=manifest,
        archive=packed,
        digest=rootfs.digest,
        blank=identity.blank(rootfs, manifest),
        bound=dropins.bound(manifest),
    )


def size_of(image: Image) -> int:
    """Bytes of what `store` writes, about."""
    contents = (len(entry.content) for entry in image.rootfs if isinstance(entry, File))
    return len(image.archive) + sum(contents)


def entries_of(image: Image, share: Share, granted: Access) -> tuple[Entry, ...]:
    """The entries of an instance's own root, those that deploy fills in being empty or generic.

    With a shared /cbin what is below it stays out, and so do the manifest and the notice, the
    largest files of the rest: the host has them. Mount points and links for drop-ins are this
    host's.
    """
    kept = {entry.path: entry for entry in image.rootfs if _is_own(entry, share)}
    kept |= {entry.path: entry for entry in image.bound.entries}
    for path in image.blank.paths:
        if path not in kept:
            # the host key: the one file that no image may hold
            kept[path] = File(path=path, content=b"", mode=0o600)
    for account in image.manifest.ssh.accounts:
        owner = {"uid": account.uid, "gid": account.gid}
        folder = f"{account.home}/.ssh".lstrip("/")
        path = f"{folder}/authorized_keys"
        old = kept.get(path)
        lines = old.content.decode().splitlines() if isinstance(old, File) else []
        text = "".join(f"{line}\n" for line in access.merged(lines, granted))
        if account.home:
            kept.setdefault(account.home, Directory(path=account.home, **owner))
        kept[folder] = Directory(path=folder, mode=0o700, **owner)
        kept[path] = File(path=path, content=text.encode(), mode=0o600, **owner)
    return Rootfs.of(kept.values()).entries


_OF_THE_IMAGE = (manifests.PATH, manifests.NOTICE)


def _is_own(entry: Entry, share: Share) -> bool:
    if share is Share.NONE:
        return True
    return not entry.path.startswith("cbin/") and entry.path not in _OF_THE_IMAGE


def is_stored(layout: Layout, image: Image) -> bool:
    """Whether all of *image* is on this host and undamaged. Raises OSError."""
    return (
        files.holds(kept.manifest_file(layout, image.digest), _described(image))
        and files.holds(kept.archive_file(layout, image.digest), image.archive)
        and shared.is_whole(layout, image.digest, image.rootfs)
    )


def store(layout: Layout, image: Image) -> bool:
    """Keep the shared part of *image*, its archive and its manifest, durably; no if all is there.

    Safe to be killed: what an interrupted run or a power failure left is made whole. Raises
    OSError.
    """
    with Batch(layout) as batch:
        is_changed = put(batch, layout, image)
        if not batch.commit() and is_changed:
            files.sync(layout.shared)
    return is_changed


def put(batch: Batch, layout: Layout, image: Image) -> bool:
    """Have *batch* do what `store` does; no if all is there. Raises OSError."""
    is_changed = shared.put(batch, layout, image.digest, image.rootfs)
    for path, content in (
        (kept.archive_file(layout, image.digest), image.archive),
        (kept.manifest_file(layout, image.digest), _described(image)),
    ):
        if not files.holds(path, content):
            batch.put(path, content)
            is_changed = True
    return is_changed


def _described(image: Image) -> bytes:
    entry = image.rootfs.find(manifests.PATH)
    return entry.content if isinstance(entry, File) else b""


def stored(layout: Layout, digest: str) -> Image:
    """An image that `store` keeps, checked. Raises ImageError if it is not there or damaged."""
    rootfs, packed = kept.opened(layout, digest)
    try:
        return _checked(rootfs, packed, str(kept.archive_file(layout, digest)))
    except NiftyError as error:
        raise kept.lost(digest, error.message) from error


def looks_whole(layout: Layout, digest: str) -> bool:
    """Whether manifest and shared part of a kept image go together; the archive is not read."""
    try:
        records = kept.manifest_of(layout, digest).entries
        return not any(True for _path in shared.damaged(layout, digest, records))
    except (OSError, ValueError):
        return False


def mend(layout: Layout, digest: str) -> tuple[str, ...]:
    """Mend a kept image from its archive; what was done or cannot be. Raises OSError."""
    found = damage(layout, digest)
    if not found:
        return ()
    try:
        store(layout, stored(layout, digest))
    except kept.ImageError as error:
        return (*(f"cannot be mended: {line}" for line in found), *filter(None, [error.hint]))
    return tuple(f"mended from its archive: {line}" for line in found)


def damage(layout: Layout, digest: str) -> tuple[str, ...]:
    """What of a kept image is not as it was stored, one line each; nothing is written."""
    try:
        image = stored(layout, digest)
    except kept.ImageError as error:
        found = [error.message]
        try:
            records = kept.described(layout, digest).entries
            wrong = tuple(shared.damaged(layout, digest, records))
        except (kept.ImageError, OSError):
            wrong = ()
        return (*found, *(f"{layout.cbin(digest)}/{path}: damaged" for path in wrong[:3]))
    found = []
    if not files.holds(kept.manifest_file(layout, digest), _described(image)):
        found.append(
            f"{kept.manifest_file(layout, digest)}: not the manifest in the archive beside it"
        )
    try:
        if not shared.is_whole(layout, digest, image.rootfs):
            found.append(f"{layout.cbin(digest)}: not what the image shares")
    except OSError as error:
        found.append(reason(error, layout.shared))
    return tuple(found)


def remove(layout: Layout, digest: str) -> None:
    """Remove what `store` wrote; the manifest first, so that what is half gone counts as gone."""
    with trees.opened(layout.images) as folder:
        trees.remove(folder, f"{digest}.json")
        trees.remove(folder, f"{digest}.image")
    with trees.opened(layout.shared) as folder:
        trees.remove(folder, digest)
