"""An OCI image layout, a directory of this host, read as a registry is (image-layout.md).

What lies there is believed as little: it may have come on somebody's drive.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline import files
from pipeline.errors import reason, shown, some
from pipeline.net.reference import is_digest
from pipeline.net.registry import descriptors
from pipeline.net.session import RegistryError
from pipeline.paths import beneath
from pipeline.release import layout, oci

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.progress import Step
    from pipeline.release.repository import Repository

MARK = "oci-layout"
_MOST_MANIFEST = 4 << 20


def is_layout(folder: Path) -> bool:
    """Whether *folder* is an image layout."""
    with suppress(OSError):
        return (folder / MARK).is_file()
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout in *folder*: a `repository.Repository` whose tags are its index's names."""

    folder: Path

    @property
    def title(self) -> str:
        """For messages."""
        return str(self.folder)

    def get_manifest(self, name: str) -> bytes | None:
        """The manifest *name*, a digest or a name; of a layout of one index, empty for that."""
        if is_digest(name):
            return self._read(name, _MOST_MANIFEST)
        named = {
            str(_told(one).get(layout.REF_NAME)): one["digest"]
            for one in self._listed()
            if layout.REF_NAME in _told(one) or one.get("mediaType") == oci.INDEX
        }
        if not name and len(named) > 1:
            raise RegistryError(f"{self.title}: has several images: {some(map(shown, named))}")
        digest = named.get(name) if name else next(iter(named.values()), None)
        return None if digest is None else self._read(digest, _MOST_MANIFEST)

    def get_blob(self, digest: str, size: int) -> bytes:
        """The blob *digest*, exactly *size* bytes."""
        content = self._read(digest, size)
        if content is None:
            raise RegistryError(f"{self.title}: there is no {digest}, though it is named")
        return content

    def download_blob(
        self, digest: str, size: int, sink: BinaryIO, *, step: Step, begun: int = 0
    ) -> None:
        """As `get_blob` to *sink*, whose first *begun* bytes are there already."""
        content = self.get_blob(digest, size)
        sink.seek(begun)
        sink.write(content[begun:])
        step(len(content) - begun)

    def referrers(self, digest: str) -> list[dict[str, Any]] | None:  # noqa: ARG002 (as a registry)
        """Descriptors of all that the layout lists beside its images."""
        return [one for one in self._listed() if layout.REF_NAME not in _told(one)]

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return descriptors(files.read(self.folder / "index.json", limit=_MOST_MANIFEST))
        except OSError as error:
            raise RegistryError(f"{self.folder}/index.json: {error.strerror}") from error

    def _read(self, digest: str, limit: int) -> bytes | None:
        path = beneath(self.folder, f"blobs/{digest.replace(':', '/')}")
        try:
            content = files.read(path, limit=limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}") from error
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise RegistryError(f"{path}: has other bytes than its name says")
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The repository *source*, whose blobs are kept in the layout that is made in *folder*."""

    source: Repository
    folder: Path

    @property
    def title(self) -> str:
        """For messages."""
        return self.source.title

    def get_manifest(self, name: str) -> bytes | None:
        """As *source* has it: small, and a tag may have moved."""
        return self.source.get_manifest(name)

    def referrers(self, digest: str) -> list[dict[str, Any]] | None:
        """As *source* has them."""
        return self.source.referrers(digest)

    def get_blob(self, digest: str, size: int) -> bytes:
        """As it is kept, else as *source* has it."""
        path = beneath(self.folder, f"blobs/{digest.replace(':', '/')}")
        with suppress(RegistryError):
            return Layout(folder=self.folder).get_blob(digest, size)
        content = self.source.get_blob(digest, size)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.put_cached(path, content)
        except OSError as error:
            raise RegistryError(reason(error, path)) from error
        return content

    def download_blob(
        self, digest: str, size: int, sink: BinaryIO, *, step: Step, begun: int = 0
    ) -> None:
        """As *source* has it."""
        self.source.download_blob(digest, size, sink, step=step, begun=begun)


def _told(one: dict[str, Any]) -> dict[str, Any]:
    found = one.get("annotations")
    return found if isinstance(found, dict) else {}
