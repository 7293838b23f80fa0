"""Which files of this program are published as source: what git tracks, or all but caches."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.release import gathered
from pipeline.run import run

if TYPE_CHECKING:
    from pathlib import Path

TRACKED = (
    "dodo.py",
    "pipeline/a.py",
    "pyproject.toml",
    "recipes/components/box/recipe.toml",
    "recipes/images/tiny.toml",
)
LEFT_OVER = (
    "pipeline/__pycache__/a.pyc",
    "recipes/.a.swp",
    "README.md",
    "artifacts/store/x",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (*TRACKED, *LEFT_OVER, "recipes/images/private.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def taken(project: Path, image: str = "tiny") -> dict[str, bytes]:
    return dict(gathered.program(project, ["box"], image))


def test_without_git_all_but_caches(project: Path) -> None:
    assert taken(project) == {
        name: name.encode() for name in sorted((*TRACKED, "recipes/images/private.toml"))
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_of_a_checkout_what_git_tracks_and_the_images_own_recipes(project: Path) -> None:
    run(["git", "init", "-q"], cwd=project)
    tracked = [name for name in TRACKED if "box" not in name]
    run(["git", "add", *tracked], cwd=project)
    assert sorted(taken(project)) == sorted(TRACKED)
    assert "recipes/images/private.toml" in taken(project, "private")
    (project / "pipeline/a.py").unlink()  # tracked, and gone since
    assert sorted(taken(project)) == sorted(set(TRACKED) - {"pipeline/a.py"})
