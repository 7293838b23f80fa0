"""Nothing that root inside an instance plants there leads out of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from pipeline import trees
from pipeline.trees import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    with trees.opened(tmp_path) as descriptor:
        yield descriptor


def test_removing_takes_the_whole_tree(at: int, tmp_path: Path) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/file").write_text("x")
    (tmp_path / "root/link").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "root/pipe")
    trees.remove(at, "root")
    assert list(tmp_path.iterdir()) == []


def test_removing_leaves_what_links_lead_to(at: int, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to("../host")
    trees.remove(at, "root")
    assert (tmp_path / "host/file").read_text() == "x"


def test_removing_a_link_leaves_its_target(at: int, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "root").symlink_to("host")
    trees.remove(at, "root")
    assert [path.name for path in tmp_path.iterdir()] == ["host"]


def test_removing_what_is_not_there_removes_nothing(at: int, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    trees.remove(at, "none")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_tree_deeper_than_any_path_is_removed(at: int, tmp_path: Path) -> None:
    # 1500 levels are more than a stack of descriptors (1024) and more than PATH_MAX can name
    below = os.dup(at)
    for _level in range(1500):
        os.mkdir("deep", dir_fd=below)
        next_below = os.open("deep", DIRECTORY, dir_fd=below)
        os.close(below)
        below = next_below
    os.close(below)
    trees.remove(at, "deep")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("link", errno.ELOOP),
        ("pipe", errno.EINVAL),
        ("folder", errno.EINVAL),
        ("big", errno.EFBIG),
        ("none", errno.ENOENT),
    ],
)
def test_reading_refuses_all_but_small_files(
    at: int, tmp_path: Path, name: str, error: int
) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "big").write_text("123456789")
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its errno is looked at)
        trees.read_file(at, name, limit=8)
    assert caught.value.errno == error


def test_a_file_is_read(at: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345678")
    assert trees.read_file(at, "file", limit=8) == b"12345678"


def test_a_parent_that_is_a_link_is_refused(at: int, tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/etc")
    with pytest.raises(NotADirectoryError), trees.parent(at, "etc/passwd"):
        pass


def test_a_parent_is_found(at: int, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    with trees.parent(at, "a/b/c") as (above, name):
        assert trees.read_file(above, name, limit=8) == b"x"
