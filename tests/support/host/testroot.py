"""The root file system of the test machine: a minimal Debian as a tar, cached in artifacts/.

NIFTY_TEST_SUITE in the environment says which release: bookworm (systemd 252, the default), trixie
(257) or sid.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from pathlib import Path

from pipeline.errors import NiftyError
from pipeline.paths import PROJECT
from pipeline.run import run

SUITES = ("bookworm", "trixie", "sid")
SYSTEM = (
    *("systemd", "systemd-sysv", "dbus", "systemd-container"),
    *("iproute2", "openssh-client", "uidmap", "nftables", "procps"),
)
# What tests take into instances as drop-ins.
DROPINS = ("gawk", "python3", "git", "curl")
# The folder below /usr/lib of the release's own Python.
PYTHONS = {"bookworm": "python3.11", "trixie": "python3.13", "sid": "python3.14"}
# What the extension modules of a Python compiled on the outer machine load; the Python is bound in.
PYTHON_NEEDS = (
    *("libssl3", "libffi8", "libsqlite3-0", "zlib1g", "libbz2-1.0", "liblzma5"),
    *("libreadline8", "libncursesw6", "libuuid1"),
)
# Renamed in trixie, when time_t grew to 64 bits on 32-bit machines.
RENAMED = {"libssl3": "libssl3t64", "libreadline8": "libreadline8t64"}

# $1 work directory, $2 archive, $3 packages, $4 suite, $5 mirror
BOOTSTRAP = """set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
debootstrap --variant=minbase --include="$3" "$4" "$1/root" "$5"
cd "$1/root"
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/man/* usr/share/locale/*
tar --create --file="$2" .
"""


class MirrorError(NiftyError):
    """No Debian mirror is known to this host's apt."""


class SuiteError(NiftyError):
    """A release that is none of SUITES."""


def wanted_suite() -> str:
    """The release that NIFTY_TEST_SUITE names; raises SuiteError for one that is not known."""
    suite = os.environ.get("NIFTY_TEST_SUITE") or SUITES[0]
    if suite not in SUITES:
        raise SuiteError(f"NIFTY_TEST_SUITE={suite}: no release here", hint=" or ".join(SUITES))
    return suite


def release_here() -> str:
    """The code name of the release that runs the tests (os-release(5)); empty when it has none."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def root_archive() -> Path:
    """The tar of a minimal Debian, made by debootstrap when the cache has none (about a minute)."""
    suite = wanted_suite()
    # A Python of the distribution, which has its files all over /usr, is the machine's own.
    packages: tuple[str, ...] = (*SYSTEM, *PYTHON_NEEDS, *DROPINS)
    if suite != "bookworm":
        packages = tuple(RENAMED.get(package, package) for package in packages)
    return archive(suite, packages)


def archive(suite: str, packages: tuple[str, ...]) -> Path:
    """The tar of a minimal Debian *suite* with *packages* besides, from the cache or made."""
    words = "\n".join((BOOTSTRAP, platform.machine(), suite, *packages))
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    made = PROJECT / "artifacts" / "cache" / "testhost" / digest / "root.tar"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nifty-test-") as work:
        part = made.with_name(f"{Path(work).name}.part")
        try:
            run(
                [
                    # interrupted or killed, debootstrap dies with us, and its mounts with it
                    *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount"),
                    *("--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", BOOTSTRAP, "sh"),
                    *(work, part, ",".join(packages), suite, mirror(suite)),
                ],
                timeout=1200,
            )
            part.replace(made)
        finally:
            part.unlink(missing_ok=True)
    return made


def mirror(suite: str) -> str:
    """The Debian mirror the host's own apt uses (apt-get(8), indextargets), best for *suite*."""
    form = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)"
    rows = [
        row.split("|", 3)
        for row in run(["apt-get", "indextargets", "--format", form]).stdout.splitlines()
    ]
    debian = [row for row in rows if row[:2] == ["Debian", "Debian"]]
    for _, _, codename, address in sorted(debian, key=lambda row: row[2] != suite):
        return address if codename else ""
    raise MirrorError("apt knows no Debian mirror", hint="apt-get update")
