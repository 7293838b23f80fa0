"""What is asked of ext4 and xfs, whose quotas a test's kernel may not have: the calls, by value.

Numbers and layouts are those of linux/fs.h, linux/quota.h and linux/dqblk_xfs.h, spelt out.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from pipeline.host.roots import quota
from pipeline.host.roots.quota import Means, Use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXT4, XFS, BTRFS, TMPFS = 0xEF53, 0x58465342, 0x9123683E, 0x01021994
M64 = 64 << 20
SETQLIM, GETQUOTA, GETQSTAT = 0x5804, 0x5803, 0x5805  # XQM_CMD


class Kernel:
    """A file system with project quota that keeps what it is told, in the kernel's own layouts."""

    def __init__(self, kind: int, flags: int) -> None:
        self.kind, self.flags = kind, flags
        self.projects: dict[tuple[int, int], tuple[int, int]] = {}  # flags and project by inode
        self.limits: dict[int, tuple[int, int]] = {}  # blocks of 512 bytes and inodes, hard
        self.used: dict[int, tuple[int, int]] = {}
        self.refused = 0

    def ioctl(self, at: int, request: int, words: bytearray) -> int:
        facts = os.fstat(at)
        inode = (facts.st_dev, facts.st_ino)
        flags, project = self.projects.get(inode, (0x80000000, 0))
        if request == 0x801C581F:  # FS_IOC_FSGETXATTR, struct fsxattr
            words[:] = struct.pack("=5I8x", flags, 11, 12, project, 13)
        else:
            assert request == 0x401C5820  # FS_IOC_FSSETXATTR
            flags, size, extents, project, copies = struct.unpack("=5I8x", words)
            assert (size, extents, copies) == (11, 12, 13)
            self.projects[inode] = (flags, project)
        return 0

    def quotactl(self, _at: int, command: int, number: int, table: bytes) -> bytes:
        if command == GETQSTAT:
            return struct.pack("=bxH124x", 1, self.flags)
        # struct fs_disk_quota: version, flags, mask, id; hard and soft of blocks and inodes; use
        if command == GETQUOTA:
            if number not in self.used.keys() | self.limits.keys():
                raise OSError(errno.ENOENT, "no such project")
            limit, used = self.limits.get(number, (0, 0)), self.used.get(number, (0, 0))
            fields = (1, 2, 0, number, limit[0], 0, limit[1], 0, *used)
            return struct.pack("=bbHI4QQQ56x", *fields)
        assert command == SETQLIM
        if self.refused:
            raise OSError(self.refused, "refused")
        version, kind, mask, named, hard, _soft, inodes, *_rest = struct.unpack(
            "=bbHI4QQQ56x", table
        )
        # FS_DQUOT_VERSION, FS_PROJ_QUOTA, FS_DQ_IHARD and FS_DQ_BHARD
        assert (version, kind, mask, named) == (1, 2, 1 << 1 | 1 << 3, number)
        self.limits[number] = (hard, inodes)
        return table


@pytest.fixture(params=[EXT4, XFS])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return installed(Kernel(request.param, 0x30), monkeypatch)


def installed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(quota, "_kind", lambda _at: kernel.kind)
    monkeypatch.setattr(quota, "_quotactl", kernel.quotactl)
    monkeypatch.setattr("fcntl.ioctl", kernel.ioctl)
    return kernel


@pytest.fixture
def above(tmp_path: Path) -> Iterator[int]:
    at = os.open(tmp_path, os.O_RDONLY)
    yield at
    os.close(at)


@pytest.fixture
def root(kernel: Kernel, above: int) -> Iterator[int]:
    kernel.used[700000] = (0, 1)  # somebody's
    kernel.limits[700001] = (9, 9)  # left by a run that was killed
    quota.make(above, b"nifty1", projects=[700000, 700001, 700002], size=M64)
    at = os.open("nifty1", os.O_RDONLY, dir_fd=above)
    yield at
    os.close(at)


def project(kernel: Kernel, at: int) -> tuple[int, int]:
    facts = os.fstat(at)
    return kernel.projects[facts.st_dev, facts.st_ino]


def test_a_root_gets_a_project_of_its_own_that_all_in_it_inherits(
    kernel: Kernel, root: int
) -> None:
    assert project(kernel, root) == (0x80000200, 700001)  # FS_XFLAG_PROJINHERIT
    assert kernel.limits[700001] == (M64 // 512, M64 // 4096)
    assert os.fstat(root).st_mode & 0o7777 == 0o755


def test_use_and_limit_are_told_in_bytes(kernel: Kernel, root: int) -> None:
    kernel.used[700001] = (100, 7)
    assert quota.use(root) == Use(used=51200, limit=M64)


def test_another_limit_is_set_or_none(kernel: Kernel, root: int) -> None:
    quota.limit(root, 1000)
    assert kernel.limits[700001] == (2, 1)
    quota.limit(root, 0)
    assert kernel.limits[700001] == (0, 0)


def test_the_limit_goes_with_the_root(kernel: Kernel, root: int, above: int) -> None:
    assert quota.is_bounded(root)
    forget = quota.forgetting(above, "nifty1")
    assert forget is not None
    os.rmdir("nifty1", dir_fd=above)
    forget(above)
    assert kernel.limits[700001] == (0, 0)


def test_no_directory_is_left_where_the_limit_is_refused(kernel: Kernel, above: int) -> None:
    kernel.refused = errno.EPERM
    with pytest.raises(PermissionError):
        quota.make(above, b"nifty1", projects=[700000], size=M64)
    assert os.listdir(above) == []


@pytest.mark.parametrize(
    ("kind", "flags", "means", "todo"),
    [
        (EXT4, 0x30, Means.PROJECT, ""),
        (XFS, 0x30, Means.PROJECT, ""),
        (EXT4, 0x10, None, "mount it with -o prjquota"),
        (EXT4, 0, None, "unmount it, tune2fs -O project,quota DEVICE, then mount it with -o"),
        (EXT4, 0x0F, None, "unmount it, tune2fs -O project,quota DEVICE"),  # users' and groups'
        (XFS, 0x10, None, "mount it with -o prjquota"),
        (XFS, 0, None, "mount it with -o prjquota"),
        (TMPFS, 0, None, "choose a prefix= on ext4, xfs or btrfs"),
    ],
)
def test_only_what_is_enforced_is_a_bound(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: int,
    flags: int,
    means: Means | None,
    todo: str,
) -> None:
    installed(Kernel(kind, flags), monkeypatch)
    found = quota.ability(tmp_path)
    assert found.means is means
    assert found.todo.startswith(todo)
    assert bool(found.todo) == bool(found.lacking) == (means is None)
