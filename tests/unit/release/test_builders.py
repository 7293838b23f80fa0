"""Who built: this machine or a forge's run, with which commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.release import builders
from pipeline.run import run
from tests.support.signers import require

if TYPE_CHECKING:
    from pathlib import Path

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.example.org",
    "GITHUB_REPOSITORY": "some/nifty",
    "GITHUB_RUN_ID": "7",
}
GITLAB = {"GITLAB_CI": "true", "CI_JOB_URL": "https://gitlab.example.org/some/nifty/-/jobs/7"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "urn:nifty:local"),
        (GITHUB, "https://github.example.org/some/nifty/actions/runs/7"),
        ({**GITHUB, "GITHUB_RUN_ID": ""}, "urn:nifty:local"),
        (GITLAB, "https://gitlab.example.org/some/nifty/-/jobs/7"),
        ({"CI_JOB_URL": "https://example.org"}, "urn:nifty:local"),
    ],
)
def test_the_builder_is_the_run_of_a_forge_or_local(
    environment: dict[str, str], name: str, tmp_path: Path
) -> None:
    made = builders.builder(environment, tmp_path)
    assert (made.name, made.commit, made.changed) == (name, None, False)


def test_the_commit_and_whether_what_is_built_was_changed(tmp_path: Path) -> None:
    require("git")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    run([*git, "init", "-q"])
    assert builders.builder({}, tmp_path).commit is None
    (tmp_path / "dodo.py").write_text("one")
    (tmp_path / "README.md").write_text("one")
    run([*git, "add", "."])
    run([*git, "commit", "-qm", "one"])
    commit = run([*git, "rev-parse", "HEAD"]).stdout.strip()
    (tmp_path / "README.md").write_text("no matter of a build")
    made = builders.builder({}, tmp_path)
    assert (made.commit, made.changed) == (commit, False)
    (tmp_path / "dodo.py").write_text("two")
    assert builders.builder({}, tmp_path).changed
