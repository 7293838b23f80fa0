"""Names the tasks: `doit X` runs pipeline/commands/X.py. `doit list` shows them."""

from __future__ import annotations

from typing import Any

from pipeline.tasks import build, misspelt
from pipeline.tasks.actions import Reporter, always, end_tidily, made
from pipeline.tasks.database import database
from pipeline.tasks.host import (
    task_backup,
    task_console,
    task_deploy,
    task_doctor,
    task_firewall,
    task_mirror,
    task_restart,
    task_restore,
    task_shell,
    task_ssh,
    task_start,
    task_status,
    task_stop,
    task_telnet,
    task_undeploy,
    task_upgrade,
    task_verify,
)

__all__ = [
    "DOIT_CONFIG",
    "task_backup",
    "task_console",
    "task_deploy",
    "task_doctor",
    "task_firewall",
    "task_mirror",
    "task_restart",
    "task_restore",
    "task_shell",
    "task_ssh",
    "task_start",
    "task_status",
    "task_stop",
    "task_telnet",
    "task_undeploy",
    "task_upgrade",
    "task_verify",
]

end_tidily()

DOIT_CONFIG = {
    "default_tasks": ["build"],
    "forget_sub": True,
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


def task__recipe() -> Any:
    """Check the recipes of the image"""
    return made(build.recipe)


def task__others() -> Any:
    """Check every recipe, when the image has been built"""
    return made(build.others)


def task__show() -> Any:
    """Show what was built"""
    return made(build.show)


def task_fetch() -> Any:
    """Fetch and verify the sources of the image (offline=yes: the store alone)"""
    return made(build.fetch)


def task_tools() -> Any:
    """Look for what compiling needs"""
    return made(build.tools)


def task_component() -> Any:
    """Compile the components of the image"""
    return made(build.component)


def task_image() -> Any:
    """Assemble and pack the image"""
    return made(build.image)


def task_checksums() -> Any:
    """Write SHA256SUMS of all artifacts"""
    return made(build.checksums)


def task_key() -> Any:
    """Make, show or change a key that signs releases (new=yes owner=... to=... | renew | revoke)"""
    return made(always("key"), archives=True)


def task_publish() -> Any:
    """Make artifacts/release/, signed (key=FILE | unsigned=yes; url=… keep=3 python=3.11)"""
    return made(build.publish)


def task_pyz() -> Any:
    """Pack the host's half as one file (python=3.11,3.13 arch=x86_64,aarch64; renew=yes: pins)"""
    return made(always("pyz"), several=True)


def task_ci() -> Any:
    """Print what builds, rebuilds and publishes on a forge (kind=github|gitlab to=FILE)"""
    return made(always("ci"))


def task_outdated() -> Any:
    """Compare the pinned versions with the newest releases (format=json)"""
    return made(always("outdated"))


def task_audit() -> Any:
    """List the known vulnerabilities of the image's components, patched or not (format=json)"""
    return made(always("audit"))


def task_inspect() -> Any:
    """Show the image's binaries and memory (count=1000), or any ELF file (file=/bin/ls)"""
    return made(build.inspect, archives=True)


def task_push() -> Any:
    """Push the image to a registry (to=oci://HOST/NAME tag=... dry=yes format=json)"""
    return made(always("push"))


def task_bench() -> Any:
    """Measure beside peers (parts=build,image,deploy,start counts=10,1000 on=tmpfs,xfs rounds=3)"""
    return made(always("bench"), archives=True)


misspelt.install(name[5:] for name in dir() if name.startswith("task_") and name[5] != "_")
