"""Who builds here: this machine, or a run of a forge's CI, with which commit of this program."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pipeline.release.gathered import PROGRAM
from pipeline.release.provenance import Builder
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# How to repeat it: docs/documents.md. No URL: that page is in every copy of this program.
KIND = "urn:nifty:doit-build:1"
LOCAL = "urn:nifty:local"


def builder(environment: Mapping[str, str], project: Path) -> Builder:
    """Who builds in *environment* with the program in the folder *project*."""
    commit, changed = _commit(project)
    return Builder(name=forge(environment) or LOCAL, kind=KIND, commit=commit, changed=changed)


def forge(environment: Mapping[str, str]) -> str | None:
    """The URL of the run of a CI; None outside of one.

    By the variables that GitHub Actions (and Forgejo's and Gitea's, which have the same) and GitLab
    CI/CD document.
    """
    github = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    if environment.get("GITHUB_ACTIONS") == "true" and all(map(environment.get, github)):
        server, repository, number = (environment[name] for name in github)
        return f"{server}/{repository}/actions/runs/{number}"
    if environment.get("GITLAB_CI") == "true":
        return environment.get("CI_JOB_URL") or None
    return None


def _commit(project: Path) -> tuple[str | None, bool]:
    """The commit of a git checkout, and whether files that a build needs were changed since."""
    if not (project / ".git").exists() or not shutil.which("git"):
        return None, False
    # whoever the checkout belongs to: git is only asked what it tracks
    git = ["git", "-c", "safe.directory=*"]
    found = run([*git, "rev-parse", "--verify", "--quiet", "HEAD"], cwd=project, check=False)
    if found.returncode != 0:
        return None, False
    words = ("status", "--porcelain", "--untracked-files=no", "--", *PROGRAM)
    return found.stdout.strip(), bool(run([*git, *words], cwd=project).stdout.strip())
