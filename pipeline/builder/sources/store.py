"""The store: verified downloads, each named by its digest; nothing else gets in.

A draft is written beside its final place, checked, synced and renamed: being killed at any point
leaves the whole file or none. A draft is locked while somebody writes it, so that one which nobody
holds is known to be left over and goes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.builder.sources import signature
from pipeline.errors import NiftyError
from pipeline.paths import beneath
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedRandom, BufferedReader
    from pathlib import Path

    from pipeline.builder.recipes.component import Source

_DRAFT = ".draft-"
_LOCK = ".lock"


class StoreError(NiftyError):
    """The store's folder, or a file in it, cannot be used."""


class MismatchError(NiftyError):
    """A file that is not the one its recipe pins; the message is one line without the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A file on its way into the store: open for reading and writing, locked by its writer."""

    path: Path
    file: BufferedRandom


def mismatch(file: BufferedRandom | BufferedReader, source: Source) -> str | None:
    """What is wrong with the open *file*, in one line, when it is not exactly *source*."""
    size = os.fstat(file.fileno()).st_size
    if size != source.size:
        return f"is {size} bytes long, the recipe pins {source.size}"
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        return f"has the sha256 {digest}, the recipe pins {source.sha256}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A flat folder of files named `<sha256>-<file>`; any number of processes may share it."""

    root: Path

    def path(self, sha256: str, file: str) -> Path:
        """Where the file of that digest and name lies, or would lie."""
        return beneath(self.root, f"{sha256}-{file}")

    def get(self, source: Source) -> Path | None:
        """The stored file of *source*, or None when there is none.

        Size and digest are read anew each time: a file that has gone bad is reported on stderr and
        removed, and the answer is None. Raises StoreError if it cannot be read or removed, or if
        only its pinned size is wrong: the recipe's mistake costs nobody the file.
        """
        path = self.path(source.sha256, source.file)
        try:
            problem = _stored_problem(path, source)
            if problem:
                # under the lock, or the good file another process just put there would go
                with files.locked(self.root / _LOCK):
                    problem = _stored_problem(path, source)
                    if problem:
                        _keep_if_as_named(path, source)
                        path.unlink()
                        say(f"{path}: has gone bad ({problem}); removed")
                        return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error) from error
        return path

    def missing(self, sources: Iterable[Source]) -> tuple[Source, ...]:
        """Those of *sources* that `get` does not find, in their order."""
        return tuple(source for source in sources if self.get(source) is None)

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A new, empty draft in the store's folder; at the end it is gone, unless it was `put`.

        Drafts that killed processes left over are removed first. Raises StoreError.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            draft = self._new_draft()
        except OSError as error:
            raise _unusable(self.root, error) from error
        try:
            yield draft
        except OSError as error:  # no room left, most likely
            raise _unusable(draft.path, error) from error
        finally:
            # before the lock goes with the closing: a sweep would meet the same file
            draft.path.unlink(missing_ok=True)
            draft.file.close()

    def put(self, draft: Draft, source: Source, *, folder: Path) -> Path:
        """Takes *draft* in as *source*'s file, if size, digest and signature all hold.

        *folder* is the recipe's, where key and signature lie. Raises MismatchError for other bytes
        than the pinned ones, SignatureError for the pinned ones when their signature does not hold.
        """
        path = self.path(source.sha256, source.file)
        try:
            draft.file.flush()
            problem = mismatch(draft.file, source)
            if problem:
                raise MismatchError(problem)
            if source.signature:
                signature.verify(draft.path, source.signature, folder)
            os.fchmod(draft.file.fileno(), 0o644)
            os.fsync(draft.file.fileno())
            with files.locked(self.root / _LOCK):
                draft.path.replace(path)
            files.sync_folder(self.root)
        except OSError as error:
            raise _unusable(path, error) from error
        return path

    def _new_draft(self) -> Draft:
        while True:
            descriptor, name = tempfile.mkstemp(prefix=_DRAFT, dir=self.root)
            files.lock(descriptor)
            file = os.fdopen(descriptor, "w+b")
            # another process may have swept it away between its making and its locking
            if os.fstat(descriptor).st_nlink:
                return Draft(path=beneath(self.root, os.path.basename(name)), file=file)  # noqa: PTH119 (mkstemp gives text)
            file.close()

    def _sweep(self) -> None:
        for path in self.root.glob(f"{_DRAFT}*"):
            with suppress(OSError), path.open("rb") as file:
                if files.lock(file.fileno(), wait=False):
                    path.unlink()


def _stored_problem(path: Path, source: Source) -> str | None:
    # a link could lead anywhere and a FIFO would block: looked at before it is opened
    if not stat.S_ISREG(path.lstat().st_mode):
        return "is no regular file"
    with path.open("rb") as file:
        return mismatch(file, source)


def _keep_if_as_named(path: Path, source: Source) -> None:
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == source.sha256:
        raise StoreError(
            f"{path}: has the pinned sha256, but {state.st_size} bytes; the recipe pins "
            f"{source.size}",
            hint=f"correct source.size in the recipe of {source.file}",
        )


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: {error.strerror or error}",
        hint="the store must be a folder this user may write to, with room left",
    )
