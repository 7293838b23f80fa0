"""Names the tasks; what they do is in pipeline/tasks. `doit list` shows them."""

from __future__ import annotations

from typing import Any

from pipeline.tasks import build, report
from pipeline.tasks.actions import Reporter, end_tidily, made
from pipeline.tasks.database import database

end_tidily()

DOIT_CONFIG = {
    "default_tasks": ["build"],
    "reporter": Reporter,
    "backend": "sqlite3",
    "dep_file": database(),
    "verbosity": 2,
}


def task_build() -> Any:
    """Build the image (image=nifty arch=x86_64 offline=no jobs=N)"""
    return made(build.build)


def task_recipes() -> Any:
    """Check every recipe"""
    return made(build.recipes)


def task_fetch() -> Any:
    """Fetch and verify the sources of the image (offline=yes: the store alone)"""
    return made(build.fetch)


def task_component() -> Any:
    """Compile the components of the image"""
    return made(build.component)


def task_image() -> Any:
    """Assemble and pack the image"""
    return made(build.image)


def task_checksums() -> Any:
    """Write SHA256SUMS of all artifacts"""
    return made(build.checksums)


def task_outdated() -> Any:
    """Compare the pinned versions with the newest releases (format=json)"""
    return made(report.outdated)


def task_inspect() -> Any:
    """Show the image's binaries and memory (count=1000), or any ELF file (file=/bin/ls)"""
    return made(report.inspect)
