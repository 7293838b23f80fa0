"""What one instance of an image takes of a disk, and the image itself, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host.roots import access, images
from pipeline.image.rootfs import Directory, File, Symlink

if TYPE_CHECKING:
    from pipeline.host.roots.access import Access
    from pipeline.host.roots.images import Image
    from pipeline.host.wanted import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """*files* are the bytes of each file of an instance's root.

    *once* are the bytes of what is stored for all, in *once_inodes* files, directories and links.

    *lacking*: why the image would not run on this host, or is refused, a line each.
    """

    digest: str
    files: tuple[int, ...]
    directories: int
    links: int
    once: int
    once_inodes: int = 0
    lacking: tuple[str, ...] = ()

    def bytes_each(self, block: int, directory: int, *, beside: int) -> int:
        """Bytes on a file system with such blocks, with *beside* small files outside of the root.

        Those are its state, and what its unit reads.
        """
        blocks = sum(-(-size // block) for size in self.files) + beside
        return blocks * block + (self.directories + 1) * directory

    def inodes_each(self, *, beside: int) -> int:
        """Inodes, with the root and *beside* files outside of it."""
        return len(self.files) + self.directories + self.links + 1 + beside


# The image that recipes/images/nifty.toml makes, for who asks before there is one.
USUAL = Needs(
    digest="", files=(300,) * 13, directories=22, links=6, once=2_600_000, once_inodes=420
)


def of_image(image: Image, wanted: Wanted, granted: Access | None) -> Needs:
    """What instances of *image* take on a disk."""
    entries = images.entries_of(image, wanted.share, granted or access.Access(lines=()))
    return Needs(
        digest=image.digest,
        files=tuple(len(entry.content) or 1 for entry in entries if isinstance(entry, File)),
        directories=sum(isinstance(entry, Directory) for entry in entries),
        links=sum(isinstance(entry, Symlink) for entry in entries),
        once=images.size_of(image),
        # the archive, the manifest and the folder
        once_inodes=3 + sum(entry.path.startswith("cbin/") for entry in image.rootfs),
        lacking=image.bound.problems,
    )
