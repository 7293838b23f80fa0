"""Brings a whole release into a directory, as far as it is not there yet."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import reason
from pipeline.image import archive
from pipeline.net.https import Expected
from pipeline.paths import beneath
from pipeline.progress import bar
from pipeline.release import names, reader, whole
from pipeline.release.cache import hashed
from pipeline.release.reader import RemoteError
from pipeline.trust import sums, verify

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.net.transport import Transport

LARGEST = archive.DEFAULT_LIMITS.max_bytes
_APART = (sums.NAME, sums.SIGNATURE)


@dataclass(slots=True, kw_only=True)
class Bringer:
    """Brings the files of the release at *base* into *folder*, `check.directory`'s `bring`.

    What an earlier run has left there, or lies in *old*, is not asked for again.
    """

    base: str
    folder: Path
    transport: Transport
    old: Path | None = None
    left: int = field(default_factory=lambda: LARGEST)
    listed: dict[str, str] = field(default_factory=dict)
    brought: dict[str, str] = field(default_factory=dict)  # names by their sha256

    def __call__(self, name: str) -> None:
        """Bring *name*. Raises NiftyError."""
        try:
            if name in (sums.NAME, sums.SIGNATURE):
                (self.folder / name).unlink(missing_ok=True)
                limit = sums.LIMIT if name == sums.NAME else verify.LIMIT
                self._fetch(self.base, name, Expected(size=limit, by="are taken", is_most=True))
                return
            if not self.listed:
                self._list(sums.NAME)
                self._tidy(below=False)
            elif name not in self.listed:
                self._list(names.FOLDERS)
                self._tidy(below=True)
            path = beneath(self.folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._bring(path, name, self.listed[name])
        except OSError as error:
            raise RemoteError(reason(error, self.folder)) from error

    def _list(self, name: str) -> None:
        """What *name* lists, which is signed by now."""
        content = files.read(self.folder / name, limit=sums.LIMIT)
        self.listed |= sums.read(content, name=name, below=name == names.FOLDERS)

    def _tidy(self, *, below: bool) -> None:
        """What an earlier release has left is not wanted; links are nobody's of ours."""
        for path in [path for path in self.folder.rglob("*") if path.is_symlink()]:
            path.unlink()
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            if path.is_dir():
                if not below and names.FOLDERS not in self.listed:
                    whole.remove(path)
            elif ("/" in name) == below and name not in self.listed and name not in _APART:
                path.unlink()

    def _bring(self, path: Path, name: str, digest: str) -> None:
        if not (path.is_file() and hashed(path) == digest):
            base, source = self._nearest(name, digest)
            begun = path.stat().st_size if path.is_file() and base == self.base else 0
            expected = Expected(size=self.left, by="are left in all", is_most=True)
            self._fetch(base, name, expected, begun, source=source)
            if begun and hashed(path) != digest:
                self._fetch(base, name, expected)
        self.left -= path.stat().st_size
        self.brought[digest] = name

    def _nearest(self, name: str, digest: str) -> tuple[str, str]:
        """Where these bytes are: brought already, in *old*, or only where the release is."""
        if digest in self.brought:
            return f"{self.folder}/", self.brought[digest]
        old = None if self.old is None else beneath(self.old, name)
        if old is not None and old.is_file() and hashed(old) == digest:
            return f"{self.old}/", name
        return self.base, name

    def _fetch(
        self, base: str, name: str, expected: Expected, begun: int = 0, *, source: str = ""
    ) -> None:
        fetch = reader.fetcher(f"{base}{source or name}", expected, self.transport)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(beneath(self.folder, name), flags, 0o644), "r+b") as sink:
            sink.truncate(begun)
            with bar(name, None, unit="bytes") as step:
                fetch(sink, step, begun)
