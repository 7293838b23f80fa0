"""Who may write below a prefix, and who holds it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from pipeline.host.state.layout import Layout, LayoutError, LockedError, check_link, locked, prepare

if TYPE_CHECKING:
    from pathlib import Path


def test_new_is_closed_to_others(tmp_path: Path) -> None:
    prepare(Layout(tmp_path))
    assert stat.S_IMODE(Layout(tmp_path).new.stat().st_mode) == 0o700


def test_the_state_is_open_to_readers_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare(Layout(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(Layout(tmp_path).state.stat().st_mode) == 0o755


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare(Layout(tmp_path))
    prepare(Layout(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".nifty", "cbin"]


def test_a_prefix_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(LayoutError, match="mode 1777 lets others write there"):
        prepare(Layout(tmp_path))


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".nifty").symlink_to("elsewhere")
    with pytest.raises(LayoutError, match="links are not followed"):
        prepare(Layout(tmp_path))


def test_a_prefix_that_is_a_link_is_told_with_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "home").symlink_to("var")
    with pytest.raises(LayoutError) as caught:
        check_link(tmp_path / "home")
    assert caught.value.message == f"{tmp_path}/home: a link (links are not followed)"
    assert caught.value.hint == f"prefix={tmp_path.resolve()}/var"
    check_link(tmp_path / "var")


def test_a_missing_prefix_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"{tmp_path}/none: no such directory"):
        prepare(Layout(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_prefix_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    with pytest.raises(LayoutError, match="belongs to user 1234"):
        prepare(Layout(tmp_path))


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    prepare(layout)
    with (
        locked(layout),
        pytest.raises(LockedError, match=f"process {os.getpid()} is changing"),
        locked(layout, wait=False),
    ):
        pass


def test_a_lock_is_free_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    prepare(layout)
    with locked(layout):
        pass
    with locked(layout, wait=False):
        assert layout.lock.read_text() == f"{os.getpid()}\n"


def test_a_child_keeps_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    prepare(layout)
    reading, writing = os.pipe()
    with locked(layout):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    os.close(reading)
    try:
        with pytest.raises(LockedError), locked(layout, wait=False):
            pass
    finally:
        os.close(writing)
        os.waitpid(child, 0)
    with locked(layout, wait=False):
        pass
