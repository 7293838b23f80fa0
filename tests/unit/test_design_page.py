"""docs/design.md is the map: it has every room, and names nothing that is not there."""

from __future__ import annotations

import re

import pytest

from pipeline.paths import PROJECT

TEXT = (PROJECT / "docs/design.md").read_text("utf-8")
FOLDERS = sorted(path.parent for path in (PROJECT / "pipeline").rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: folder.name)
def test_every_room_is_on_the_map(folder: object) -> None:
    assert re.search(rf"\b{str(folder).rpartition('/')[2]}\b", TEXT)


def test_every_path_on_the_map_is_there() -> None:
    named = set(re.findall(r"\b(?:pipeline|docs)/[a-z_./]*[a-z_]", TEXT))
    assert "pipeline/host/roots" in named
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []


def test_every_module_on_the_map_is_there() -> None:
    rooms = {folder.name for folder in FOLDERS}
    named = {
        (room, name)
        for room, name in re.findall(r"`([a-z]+)[./]([a-z_]+)(?:\.[\w.]+)?`", TEXT)
        if room in rooms
    }
    assert ("roots", "deploy") in named
    assert [
        pair
        for pair in sorted(named)
        if not list((PROJECT / "pipeline").rglob(f"{pair[0]}/{pair[1]}*"))
    ] == []
