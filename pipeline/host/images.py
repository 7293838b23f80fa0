"""Images on this host: the archive as given, and what is kept of it for its instances."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.host import access, dropins, identity, trees
from pipeline.host.dropins import Bound
from pipeline.host.state import Share, write_atomic
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.access import Access
    from pipeline.host.layout import Layout
    from pipeline.image.manifest import Manifest


NOTHING = Bound()


class ImageError(NiftyError):
    """An image that cannot be deployed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A root filesystem, its manifest, the archive with both, and the digest that names it here.

    *bound* is what this host gives to its drop-ins.
    """

    rootfs: Rootfs
    manifest: Manifest
    archive: bytes
    digest: str
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
    rootfs = archive.read(path)
    return _checked(rootfs, path.read_bytes(), str(path))


def unpacked(packed: bytes, *, name: str) -> Image:
    """The image in the archive *packed*, as `load`; *name* for errors."""
    try:
        rootfs = archive.read(packed)
    except archive.ArchiveError as error:
        raise ImageError(f"{name}: {error.message}") from error
    return _checked(rootfs, packed, name)


def _checked(rootfs: Rootfs, packed: bytes, name: str) -> Image:
    manifest = manifests.read(rootfs, name=name)
    machine = os.uname().machine
    if manifest.needs.architecture != machine:
        raise ImageError(
            f"{name}: made for {manifest.needs.architecture}, this machine is {machine}",
            hint=f"doit build arch={machine}",
        )
    for part in manifest.shared:
        # only the one that an instance's unit binds
        if part != "cbin":
            raise ImageError(f"{name}: /{part} is to be shared; this program shares /cbin only")
    identity.blank(rootfs, manifest)
    return Image(
        rootfs=rootfs,
        manifest=manifest,
        archive=packed,
        digest=rootfs.digest,
        bound=dropins.bound(manifest),
    )


def size_of(image: Image) -> int:
    """Bytes of what `store` writes, about."""
    contents = (len(entry.content) for entry in image.rootfs if isinstance(entry, File))
    return len(image.archive) + sum(contents)


def entries_of(image: Image, share: Share, granted: Access) -> tuple[Entry, ...]:
    """The entries of an instance's own root, those that deploy fills in being empty or generic.

    With a shared /cbin what is below it stays out, and so does the manifest, the largest file of
    the rest: the host has it. Mount points and links for drop-ins are this host's.
    """
    kept = {entry.path: entry for entry in image.rootfs if _is_own(entry, share)}
    kept |= {entry.path: entry for entry in image.bound.entries}
    for path in identity.blank(image.rootfs, image.manifest).paths:
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


def _is_own(entry: Entry, share: Share) -> bool:
    if share is Share.NONE:
        return True
    return not entry.path.startswith("cbin/") and entry.path != manifests.PATH


def is_stored(layout: Layout, digest: str) -> bool:
    """Whether all of an image is on this host: the manifest is written last."""
    return (layout.images / f"{digest}.json").is_file()


def store(layout: Layout, image: Image) -> None:
    """Write the shared part of *image*, its archive and its manifest; safe to be killed.

    What an interrupted run left under its names is written anew. Raises OSError.
    """
    if is_stored(layout, image.digest):
        return
    with trees.opened(layout.new) as new, trees.opened(layout.shared) as shared:
        trees.remove(new, image.digest)
        os.mkdir(image.digest, 0o700, dir_fd=new)
        with trees.opened(image.digest, at=new) as folder:
            for entry in image.rootfs:
                if entry.path.startswith("cbin/"):
                    _write(folder, entry)
            os.fchmod(folder, 0o755)
        trees.remove(shared, image.digest)
        os.rename(image.digest, image.digest, src_dir_fd=new, dst_dir_fd=shared)
    write_atomic(layout, layout.images / f"{image.digest}.image", image.archive)
    described = image.rootfs.find(manifests.PATH)
    text = described.content if isinstance(described, File) else b""
    write_atomic(layout, layout.images / f"{image.digest}.json", text)


def _write(folder: int, entry: Entry) -> None:
    """One entry of /cbin, owned by the host's root whatever the image says: all share it."""
    path = entry.path.removeprefix("cbin/")
    match entry:
        case Directory():
            os.mkdir(path, dir_fd=folder)
        case Symlink():
            os.symlink(entry.target, path, dir_fd=folder)
            return
        case File():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(path, flags, dir_fd=folder)
            with open(file, "wb") as stream:  # noqa: PTH123 (a descriptor has no path)
                stream.write(entry.content)
    os.chmod(path, entry.mode & 0o755, dir_fd=folder)


def stored(layout: Layout, digest: str) -> Image:
    """An image that `store` keeps, checked. Raises ImageError if it is not there or damaged."""
    try:
        image = load(layout.images / f"{digest}.image")
    except NiftyError as error:
        raise ImageError(f"the image {digest[:12]} on this host is lost: {error}") from error
    if image.digest != digest:
        raise ImageError(f"{layout.images / digest}.image: holds another image, {image.digest}")
    return image


def described(layout: Layout, digest: str) -> Manifest:
    """The manifest of an image that `store` keeps, without reading the image. Raises ImageError."""
    path = layout.images / f"{digest}.json"
    try:
        return manifests.Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ImageError(f"{path}: damaged: {error}") from error


def remove(layout: Layout, digest: str) -> None:
    """Remove what `store` wrote; the manifest first, so that what is half gone counts as gone."""
    (layout.images / f"{digest}.json").unlink(missing_ok=True)
    (layout.images / f"{digest}.image").unlink(missing_ok=True)
    with trees.opened(layout.shared) as shared:
        trees.remove(shared, digest)
