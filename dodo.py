"""Names the tasks: `doit X` runs pipeline/commands/X.py. `doit list` shows them."""

from __future__ import annotations

from typing import Any

from pipeline.tasks import build, misspelt
from pipeline.tasks.actions import Reporter, always, end_tidily, made
from pipeline.tasks.database import database

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
    """Make artifacts/release/: the image, sums, a signature (key=FILE | unsigned=yes; keep=3)"""
    return made(build.publish)


def task_verify() -> Any:
    """Check a release as a stranger does, without root (from=FOLDER|URL keyring=FILE)"""
    return made(always("verify"), archives=True)


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


def task_deploy() -> Any:
    """Deploy instances on this host (count=1000 first=1 | name=slick port=2100; start=yes)"""
    return made(always("deploy"), archives=True)


def task_start() -> Any:
    """Start instances and wait for SSH (all, or count= first=, names=1,7,slick)"""
    return made(always("start"), archives=True)


def task_stop() -> Any:
    """Stop instances (all, or count= first=, names=)"""
    return made(always("stop"), archives=True)


def task_restart() -> Any:
    """Stop and start instances"""
    return made(always("restart"), archives=True)


def task_status() -> Any:
    """Show instances: port, image, running, SSH, memory (format=json)"""
    return made(always("status"), archives=True)


def task_ssh() -> Any:
    """Open a shell in an instance (name=7)"""
    return made(always("ssh"), archives=True)


def task_upgrade() -> Any:
    """Move instances to another image (image=... batch=50), or back (rollback=yes)"""
    return made(always("upgrade"), archives=True)


def task_backup() -> Any:
    """Write instances into one file (to=FILE; all, or count= first=, names=; stop=yes, dry=yes)"""
    return made(always("backup"), archives=True)


def task_restore() -> Any:
    """Make instances of a backup on this host (from=FILE names=1,7 dry=yes start=yes)"""
    return made(always("restore"), archives=True)


def task_undeploy() -> Any:
    """Stop and remove instances (asks, or yes=yes)"""
    return made(always("undeploy"), archives=True)


def task_doctor() -> Any:
    """Show what this host lacks for count=1000; fix=yes mends it, undo=yes takes that back"""
    return made(always("doctor"), archives=True)


def task_shell() -> Any:
    """Open a shell in an image, deployed or not, without root (image=PATH, command="ls /")"""
    return made(always("shell"), archives=True)


def task_console() -> Any:
    """Boot a stopped instance on this terminal, or open a root shell in a running one (name=7)"""
    return made(always("console"), archives=True)


def task_telnet() -> Any:
    """Serve telnet to this host (mode=inetd|forking|socket|off port=12323 listen=127.0.0.1)"""
    return made(always("telnet"), archives=True)


def task_firewall() -> Any:
    """Print rules that open the instances' ports; apply=yes loads them, undo=yes removes them"""
    return made(always("firewall"), archives=True)


def task_bench() -> Any:
    """Measure beside peers (parts=build,image,deploy,start counts=10,1000 on=tmpfs,xfs rounds=3)"""
    return made(always("bench"), archives=True)


misspelt.install(name[5:] for name in dir() if name.startswith("task_") and name[5] != "_")
