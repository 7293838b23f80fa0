"""Where everything lies below a prefix, who may write there, and the lock on it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, reason
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LayoutError(NiftyError):
    """A prefix that cannot be used, or one that others could tamper with."""


class LockedError(NiftyError):
    """Somebody else is changing this prefix."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below *prefix*; nothing is touched."""

    prefix: Path

    @property
    def state(self) -> Path:
        """What the host knows; world-readable but for secrets."""
        return self.prefix / ".nifty"

    @property
    def instances(self) -> Path:
        """One JSON for each instance."""
        return self.state / "instances"

    @property
    def images(self) -> Path:
        """`DIGEST.json`, the manifest, and `DIGEST.image`, the archive, for upgrades."""
        return self.state / "images"

    @property
    def new(self) -> Path:
        """What is not finished, and what is about to go; only for its owner."""
        return self.state / "new"

    @property
    def lock(self) -> Path:
        """Locked while something changes (flock(2)); holds the pid."""
        return self.state / "lock"

    @property
    def changing(self) -> Path:
        """Locked by whoever stops instances to start them again, for as long as that takes."""
        return self.state / "changing"

    @property
    def stopped(self) -> Path:
        """Who is down for a change and is to run again: see `owed`."""
        return self.state / "stopped"

    @property
    def restoring(self) -> Path:
        """Which backup's instances get their names right now; gone when all have them."""
        return self.state / "restoring"

    @property
    def trusted(self) -> Path:
        """What was seen of each source of images: see `trust.memory`."""
        return self.state / "trusted"

    @property
    def known_hosts(self) -> Path:
        """Host keys of all instances, for `ssh`."""
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.state / "ssh_config"

    @property
    def fleet_key(self) -> Path:
        """A private key for instances whose owner has none."""
        return self.state / "fleet_key"

    @property
    def shared(self) -> Path:
        """Holds one directory for each image, which its instances share."""
        return self.prefix / "cbin"

    def cbin(self, digest: str) -> Path:
        """The shared, read-only part of an image."""
        return self.shared / digest

    def root(self, name: str) -> Path:
        """The root of an instance."""
        return self.prefix / name


def prepare(layout: Layout) -> None:
    """Make the directories of the state, once nobody else can tamper with the prefix.

    Raises LayoutError.
    """
    check_owner(layout.prefix)
    try:
        for path, mode in (
            (layout.state, 0o755),
            (layout.instances, 0o755),
            (layout.images, 0o755),
            (layout.new, 0o700),
            (layout.shared, 0o755),
        ):
            with suppress(FileExistsError):
                path.mkdir()
                path.chmod(mode)  # the umask has no say
            check_owner(path)
    except OSError as error:
        raise LayoutError(reason(error)) from error


def check_owner(path: Path) -> None:
    """Raise the `fault` of *path*, if it has one."""
    found = fault(path)
    if found is not None:
        raise found


def check_link(path: Path) -> None:
    """Raise LayoutError if *path* is a symbolic link: all that is looked at would be elsewhere."""
    if path.is_symlink():
        check_owner(path)


def fault(path: Path) -> LayoutError | None:
    """Why *path* is no real directory that only the current user (root, outside tests) writes to.

    In any other somebody could swap what is written there for a link.
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return LayoutError(
            f"{path}: no such directory", hint=f"mkdir -m 755 {path}, or give another prefix="
        )
    except OSError as error:
        return LayoutError(f"{path}: {error.strerror}")
    if stat.S_ISLNK(facts.st_mode):
        # as /home is on hosts whose /usr is one image (ostree): /home -> var/home
        return LayoutError(
            f"{path}: a link (links are not followed)", hint=f"prefix={os.path.realpath(path)}"
        )
    if not stat.S_ISDIR(facts.st_mode):
        return LayoutError(f"{path}: not a directory", hint="give another prefix=")
    if facts.st_uid != os.geteuid():
        return LayoutError(
            f"{path}: belongs to user {facts.st_uid}, not to {os.geteuid()} who runs this",
            hint="run as root, below a directory of root's" if os.geteuid() else f"chown 0 {path}",
        )
    if facts.st_mode & 0o022:
        return LayoutError(
            f"{path}: mode {stat.S_IMODE(facts.st_mode):04o} lets others write there",
            hint=f"chmod go-w {path}",
        )
    return None


@contextmanager
def locked(layout: Layout, *, wait: bool = True) -> Iterator[None]:
    """Alone with the prefix; what is in `new` is then left over from the dead.

    Children inherit the lock, so that a killed parent's workers keep it until they end. With
    another holder: waits and says for whom or, without *wait*, raises LockedError.
    """
    with _held(layout, layout.lock, wait=wait):
        yield


@contextmanager
def changing(layout: Layout) -> Iterator[None]:
    """Alone in stopping instances to start them again; waits for another, and says for whom.

    Taken before `locked`, which is free in between.
    """
    with _held(layout, layout.changing, wait=True):
        yield


def is_changing(layout: Layout) -> bool:
    """Whether a run holds `changing` at this moment."""
    return files.is_locked(layout.changing)


@contextmanager
def _held(layout: Layout, path: Path, *, wait: bool) -> Iterator[None]:
    def busy(lock: int) -> None:
        pid = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        told = f"{layout.prefix}: process {pid} is changing the instances there"
        if not wait:
            raise LockedError(told, hint="run this again when it has ended")
        say(f"{told}; waiting for it")

    with ExitStack() as stack:
        try:
            lock = stack.enter_context(files.locked(path, busy=busy))
        except OSError as error:
            hint = f"rm -r {path}" if error.errno in (errno.EISDIR, errno.ELOOP) else None
            raise LayoutError(f"{path}: {error.strerror}", hint=hint) from error
        with suppress(OSError):  # on a full disk the pid is missing, the lock is not
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
        with suppress(OSError):
            os.ftruncate(lock, 0)


def environment_file(prefix: Path, suffix: str) -> Path:
    """Where the environment of the instance `nifty<suffix>` lies."""
    return prefix / ".nifty" / "units" / f"{suffix}.env"


def mounts_file(prefix: Path, suffix: str) -> Path:
    """Where the fstab of the instance `nifty<suffix>` lies, if its runner has one."""
    return prefix / ".nifty" / "units" / f"{suffix}.fstab"


def instance_roots(layout: Layout) -> frozenset[str]:
    """Names below the prefix that an instance could have."""
    return frozenset(name for name in names(layout.prefix) if name.startswith("nifty"))


def names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (bare names, ten times as fast)
    except FileNotFoundError:
        return []
    except PermissionError:
        # only `new` is closed; a dry run of somebody else is still worth having
        return []
