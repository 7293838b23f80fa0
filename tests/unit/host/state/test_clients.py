"""known_hosts and ssh_config on a disk that takes the one and not the other."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pipeline import files
from pipeline.host.state import clients
from pipeline.host.state.layout import Layout, prepare
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_is_left_of_lists_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    prepare(layout)
    clients.write(layout, (make_instance("1"),))
    before = layout.ssh_config.read_bytes(), layout.known_hosts.read_bytes()
    whole = files.write

    def full(path: Path, content: bytes, *, mode: int) -> None:
        if path.name.endswith("ssh_config"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        whole(path, content, mode=mode)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        clients.write(layout, (make_instance("2"),))
    assert list(layout.new.iterdir()) == []
    assert (layout.ssh_config.read_bytes(), layout.known_hosts.read_bytes()) == before
