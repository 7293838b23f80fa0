"""The bound on an instance's disk: a project quota on ext4 and xfs, a qgroup on btrfs.

A project quota counts what carries a number that every new entry inherits from its directory, so it
is set while the directory is empty; root in a user namespace cannot change it (ioctl_fssetxattr(2),
quotactl(2)). A qgroup counts a subvolume (btrfs-quota(8)). It is the weaker one: btrfs lets anybody
make subvolumes, and what is in those is not counted.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shlex
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from pipeline.host.state import records
from pipeline.host.state.records import RANGE, Users
from pipeline.trees import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from pathlib import Path

# What statfs(2) calls f_type.
_EXT4, _XFS, _BTRFS = 0xEF53, 0x58465342, 0x9123683E
_FSTATFS = struct.Struct("=q120x")

# ioctl_fsgetxattr(2): flags, extent size, extents, project, extent size of copies
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
_PROJINHERIT = 0x200

# quotactl_fd(2), with xfs's commands, which ext4 knows as well: linux/dqblk_xfs.h
_QUOTACTL_FD = 443
_PRJQUOTA = 2
_SETLIMITS, _GETQUOTA, _GETSTATE = ((ord("X") << 8) + number for number in (4, 3, 5))
# version, type, fields that count, project; limits of blocks and inodes, hard and soft; use; times
_DQUOT = struct.Struct("=bbHI4QQQ56x")
_HARD = 0b1010
_STATE = struct.Struct("=bxH124x")
_ACCOUNTED, _ENFORCED = 0x10, 0x20
_BLOCK = 512
# Else empty files, which take no block, could use up the inodes of everybody.
BYTES_AN_INODE = 4096

# Requests of btrfs, and its numbers: linux/btrfs.h
_SUBVOL_CREATE, _QGROUP_LIMIT, _QGROUP_CREATE = 0x5000940E, 0x8030942B, 0x4010942A
_INO_LOOKUP, _TREE_SEARCH = 0xD0009412, 0xD0009411
_FIRST_INODE = 256  # of every subvolume
_MAX_REFERENCED = 1
_ANY = 2**64 - 1
_QUOTA_TREE = 8
_QGROUP_STATUS, _QGROUP_INFO, _QGROUP_BOUND = 240, 242, 244
# tree; least and most of object, offset and transaction; of type; items; then headers and items
_SEARCH = struct.Struct("=7Q4I32x")
_ITEM_AT = _SEARCH.size + 32


class Means(Enum):
    """What bounds a directory on a file system."""

    PROJECT = "project quota"
    QGROUP = "btrfs qgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What a file system has: *means*, or None with what it is *lacking* and what is *todo*."""

    means: Means | None
    lacking: str = ""
    todo: str = ""


NOTHING = Ability(
    means=None, lacking="no quota for directories", todo="choose a prefix= on ext4, xfs or btrfs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Bytes *used* of *limit*; limit 0: none is set."""

    used: int
    limit: int


def ability(directory: Path) -> Ability:
    """How what is made in *directory* could be bounded. Raises OSError."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kind = _kind(at)
        if kind == _BTRFS:
            return _btrfs_ability(at, directory)
        state = _project_state(at)
    finally:
        os.close(at)
    if state & _ENFORCED:
        return Ability(means=Means.PROJECT)
    mount = "mount it with -o prjquota (in /etc/fstab; for / rootflags=prjquota at boot)"
    if kind == _EXT4:
        make = "" if state & _ACCOUNTED else "unmount it, tune2fs -O project,quota DEVICE, then "
        return Ability(
            means=None,
            lacking="ext4 without project quota",
            todo=f"{make}{mount}; the kernel needs CONFIG_QFMT_V2",
        )
    if kind == _XFS:
        return Ability(
            means=None,
            lacking="xfs without project quota",
            todo=f"{mount}; the kernel needs CONFIG_XFS_QUOTA",
        )
    return NOTHING


def _btrfs_ability(at: int, directory: Path) -> Ability:
    try:
        if _has_qgroups(at):
            return Ability(means=Means.QGROUP)
    except PermissionError:
        lacking = "btrfs, whose quota only root can see"
        return Ability(means=None, lacking=lacking, todo="run this as root")
    todo = f"btrfs quota enable {shlex.quote(str(directory))}"
    return Ability(means=None, lacking="btrfs without quota", todo=todo)


def make(at: int, name: bytes, *, projects: Iterable[int], size: int) -> None:
    """Make directory *name* in directory *at*, mode 0755, that never holds more than *size* bytes.

    Its project is the first of *projects* that nothing has on this file system. With *size* 0 it
    has no bound yet. Raises OSError, and nothing is left then.
    """
    if is_btrfs := _kind(at) == _BTRFS:
        fcntl.ioctl(at, _SUBVOL_CREATE, bytearray(struct.pack("=q4088s", 0, name)))
    else:
        os.mkdir(name, 0o755, dir_fd=at)
    try:
        with opened(os.fsdecode(name), at=at) as root:
            if not is_btrfs:
                _enter(root, next(one for one in projects if not _is_used(at, one)))
            os.fchmod(root, 0o755)  # the umask has no say
            limit(root, size)
    except OSError:
        os.rmdir(name, dir_fd=at)
        raise


def limit(root: int, size: int) -> None:
    """Bound what `make` made, open as *root*, by *size* bytes from now on; 0: by nothing.

    Raises OSError: EOPNOTSUPP for a directory that was made otherwise.
    """
    if not is_bounded(root):
        raise OSError(errno.EOPNOTSUPP, "made without a bound")
    if _kind(root) == _BTRFS:
        words = (0, _MAX_REFERENCED, size or _ANY, 0, 0, 0)
        fcntl.ioctl(root, _QGROUP_LIMIT, struct.pack("=6Q", *words))
    else:
        _limit_project(root, _project(root), size)


def use(root: int) -> Use | None:
    """How full is what `make` made, open as *root*; None if that cannot be read (not root)."""
    try:
        if not is_bounded(root):
            return None
        if _kind(root) == _BTRFS:
            return _qgroup_use(root)
        hard, used, _count = _project_use(root, _project(root))
    except (OSError, ValueError):
        return None
    return Use(used=used * _BLOCK, limit=hard * _BLOCK)


def is_bounded(root: int) -> bool:
    """Whether directory *root* is one that `make` made; it has a bound then, or had one.

    Raises OSError.
    """
    if _kind(root) == _BTRFS:
        return os.fstat(root).st_ino == _FIRST_INODE
    return _project(root) != 0


def forgetting(at: int, name: str) -> Callable[[int], None] | None:
    """What gives up the bound of *name* in directory *at* once that is removed.

    It wants any directory of that file system, and does not fail: what it leaves bounds nobody.
    None if there is no bound, or none can be seen.
    """
    with suppress(OSError), opened(name, at=at) as root:
        if not is_bounded(root):
            return None
        if _kind(root) == _BTRFS:
            return partial(_forget_qgroup, number=_subvolume(root))
        return partial(_forget_project, project=_project(root))
    return None


def _kind(at: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_FSTATFS.size)
    if libc.fstatfs(at, buffer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    (kind,) = _FSTATFS.unpack(buffer.raw)
    return int(kind)


def _quotactl(at: int, command: int, number: int, table: bytes | bytearray) -> bytes:
    """Raises OSError: ENOSYS where the kernel or this file system has no quota."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(bytes(table), len(table))
    words = (ctypes.c_uint(at), ctypes.c_uint(command << 8 | _PRJQUOTA), ctypes.c_uint(number))
    if libc.syscall(ctypes.c_long(_QUOTACTL_FD), *words, buffer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer.raw


def _project_state(at: int) -> int:
    """Whether project quotas are accounted and enforced; 0 where there are none."""
    with suppress(OSError):
        _version, flags = _STATE.unpack(_quotactl(at, _GETSTATE, 0, bytearray(_STATE.size)))
        return int(flags)
    return 0


def _project(root: int) -> int:
    attributes = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(root, _FSGETXATTR, attributes)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return 0
        raise
    return int(_FSXATTR.unpack(attributes)[3])


def _enter(root: int, project: int) -> None:
    """Give *project* to the empty directory *root*, and so to all that is made in it."""
    attributes = bytearray(_FSXATTR.size)
    fcntl.ioctl(root, _FSGETXATTR, attributes)
    flags, *sizes, _none, copies = _FSXATTR.unpack(attributes)
    changed = _FSXATTR.pack(flags | _PROJINHERIT, *sizes, project, copies)
    fcntl.ioctl(root, _FSSETXATTR, changed)


def _is_used(at: int, project: int) -> bool:
    """Whether anything on the file system has *project*; a limit alone is one that was left."""
    try:
        _hard, used, count = _project_use(at, project)
    except OSError:  # ENOENT: never heard of
        return False
    return bool(used or count)


def _project_use(at: int, project: int) -> tuple[int, int, int]:
    """The hard limit and use of *project* in blocks, and its inodes. Raises OSError."""
    table = _quotactl(at, _GETQUOTA, project, bytearray(_DQUOT.size))
    _version, _type, _mask, _id, hard, _soft, _most, _few, used, count = _DQUOT.unpack(table)
    return hard, used, count


def _limit_project(at: int, project: int, size: int) -> None:
    blocks = -(-size // _BLOCK)
    inodes = -(-size // BYTES_AN_INODE)
    fields = (1, _PRJQUOTA, _HARD, project, blocks, 0, inodes, 0, 0, 0)
    _quotactl(at, _SETLIMITS, project, _DQUOT.pack(*fields))


def _subvolume(root: int) -> int:
    """The number of the subvolume that *root* is in."""
    answer = bytearray(struct.pack("=QQ4080x", 0, _FIRST_INODE))
    fcntl.ioctl(root, _INO_LOOKUP, answer)
    return int(struct.unpack_from("=Q", answer)[0])


def _has_qgroups(at: int) -> bool:
    """Raises PermissionError for anybody but root."""
    try:
        return bool(_item(at, _QGROUP_STATUS, 0)[2] & 1)
    except FileNotFoundError:
        return False


def _qgroup_use(root: int) -> Use:
    number = _subvolume(root)
    flags, most, *_rest = _item(root, _QGROUP_BOUND, number)
    used = _item(root, _QGROUP_INFO, number)[1]
    return Use(used=used, limit=most if flags & _MAX_REFERENCED else 0)


def _item(at: int, kind: int, number: int) -> tuple[int, ...]:
    """An item of the tree of qgroups as its first three numbers.

    Raises OSError: ENOENT without quota or this item, EPERM for anybody but root.
    """
    search = _SEARCH.pack(_QUOTA_TREE, 0, 0, number, number, 0, _ANY, kind, kind, 1, 0)
    answer = bytearray(search.ljust(4096, b"\0"))
    fcntl.ioctl(at, _TREE_SEARCH, answer)
    if not _SEARCH.unpack_from(answer)[9]:
        raise FileNotFoundError(errno.ENOENT, "no such qgroup")
    return struct.unpack_from("<3Q", answer, _ITEM_AT)


def _forget_project(beside: int, project: int) -> None:
    with suppress(OSError):
        _limit_project(beside, project, 0)


def _forget_qgroup(beside: int, number: int) -> None:
    # EBUSY on kernels that keep it until the subvolume is cleaned up: `btrfs qgroup clear-stale`
    with suppress(OSError):
        fcntl.ioctl(beside, _QGROUP_CREATE, struct.pack("=QQ", 0, number))


def told(size: int) -> str:
    """*size* bytes as they are typed: `64M`; what is no whole number of those has a fraction."""
    for shift, unit in ((40, "T"), (30, "G")):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size / MIB:.10g}M"


def projects(slot: int, named: Container[int]) -> Iterator[int]:
    """Numbers for the project of *slot*: those of its user range that this host does not name."""
    first = records.base_of(slot, Users.PRIVATE)
    return (number for number in range(first, first + RANGE) if number not in named)


MIB = 1024 * 1024
