"""Which mount is the host's resolver: read from the kernel's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.host.doctor.resolver import _at, _mounts, _of_host
from pipeline.host.doctor.site import Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("20 1 8:1 / / rw - ext4 /dev/vda rw\n", Place("8:1", "{etc}/resolv.conf")),
        # a subvolume of btrfs has a path of its own within the file system
        ("20 1 0:30 /@root / rw - btrfs /dev/vda rw\n", Place("0:30", "/@root{etc}/resolv.conf")),
        (
            (
                "20 1 8:1 / / rw - ext4 /dev/vda rw\n"
                "21 20 0:9 /run/r {etc}/resolv.conf rw - tmpfs t rw\n"
            ),
            Place("0:9", "/run/r"),
        ),
    ],
)
def test_the_hosts_file_is_found_where_the_kernel_has_it(
    tmp_path: Path, mounts: str, found: Place
) -> None:
    etc = tmp_path.resolve()
    (etc / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (etc / "link").symlink_to("resolv.conf")
    (etc / "mountinfo").write_text(mounts.format(etc=etc))
    expected = Place(found.device, found.path.format(etc=etc))
    assert _of_host(etc / "mountinfo", str(etc / "link")) == expected


def test_a_host_may_have_none(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    assert _of_host(tmp_path / "mountinfo", str(tmp_path / "dangling")) is None


def test_a_file_that_was_replaced_is_another_place(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("9 8 8:1 /etc/resolv.conf//deleted /etc/resolv.conf ro - ext4 /dev/vda rw\n")
    assert _at(_mounts(table), "/etc/resolv.conf") == Place("8:1", "/etc/resolv.conf//deleted")
