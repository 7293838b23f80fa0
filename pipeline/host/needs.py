"""What one instance of an image takes of a disk, and the image itself, once."""

from __future__ import annotations

from dataclasses import dataclass


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
    digest="", files=(300,) * 13, directories=22, links=6, once=2_500_000, once_inodes=420
)
