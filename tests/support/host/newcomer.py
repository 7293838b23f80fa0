"""An ordinary user on a fresh, minimal Debian: what README says to type, typed there.

The system is what debootstrap calls minbase, with what README names and nothing else, in one tmpfs
that is gone with the process. Only the way to PyPI and to a Debian mirror is this host's own.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run
from tests.support.host.testroot import archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What README names, and what it says the tests need besides.
PACKAGES = ("python3-venv", "git", "openssh-client", "xz-utils")

# $1 archive, $2 folder for what goes in and comes out; then systemd-nspawn's words.
# /run is covered so that systemd-nspawn's own locks and sockets vanish with the namespace.
LAUNCH = """set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/root
mount -t tmpfs -o mode=755 tmpfs /run/root
tar --extract --file="$1" --directory=/run/root
cp "$2/apt.conf" /run/root/etc/apt/apt.conf.d/99host
cp /etc/resolv.conf /run/root/etc/resolv.conf
chroot /run/root useradd --create-home --shell /bin/sh newcomer
mount --bind "$2" /run/root/mnt
chroot /run/root chown newcomer /mnt
shift 2
exec "$@"
"""

# $1 …: commands, as README has them. A store of downloads is no part of what is tried.
TYPED = """set -e
cd
git clone --quiet /mnt/checkout.bundle nifty
cd nifty
mkdir -p artifacts/store
cp /mnt/store/* artifacts/store/
for command do
    echo "\\$ $command"
    eval "$command"
done
cp artifacts/SHA256SUMS /mnt/
"""


def commands() -> tuple[str, str]:
    """README's two commands: set up and build, and pass the tests."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    build, test = re.findall(r"^    \$ (.*)$", text, flags=re.MULTILINE)[:2]
    return build, test


def type_in(
    suite: str, typed: tuple[str, ...], work: Path, *, timeout: float, env: Mapping[str, str]
) -> dict[str, str]:
    """Type the commands *typed* in a fresh *suite*; the digests of SHA256SUMS by name, at the end.

    *work* is an empty folder. Raises ProgramError with the last lines if one of them fails; all
    lines are in *work*/log.
    """
    bundle = ("bundle", "create", "--quiet", work / "checkout.bundle", "HEAD")
    run(["git", "-c", "safe.directory=*", "-C", PROJECT, *bundle])
    store = work / "store"
    shutil.copytree(PROJECT / "artifacts" / "store", store)
    acquire = run(["apt-config", "dump", "Acquire"]).stdout
    (work / "apt.conf").write_text(acquire, encoding="utf-8")
    settings, folders = pip_settings(), set(pip_folders())
    run(
        [
            *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount"),
            *("--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", LAUNCH, "sh", archive(suite, PACKAGES), work),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no"),
            *("--directory=/run/root", "--machine=newcomer", "--user=newcomer", "--as-pid2"),
            *("--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *(f"--bind-ro={path}" for path in sorted(folders)),
            *(f"--setenv={name}={value}" for name, value in {**settings, **env}.items()),
            *("sh", "-c", TYPED, "sh", *typed),
        ],
        env=CLEAN_ENVIRONMENT,
        log=work / "log",
        timeout=timeout,
    )
    lines = (work / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def pip_settings() -> dict[str, str]:
    """This host's way to PyPI, as environment variables (pip: Configuration)."""
    told = run(["python3", "-m", "pip", "config", "list"], env=os.environ).stdout
    rows = re.findall(r"^(?:global|install|:env:)\.+([\w-]+)='(.*)'$", told, flags=re.MULTILINE)
    found = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in rows}
    proxies = {name: value for name, value in os.environ.items() if name.endswith("_proxy")}
    return {**found, **proxies}


def pip_folders() -> Iterator[str]:
    """Folders and files of this host that those variables name."""
    for value in pip_settings().values():
        for path in re.findall(r"(?:^|\s|file://)(/[^\s:]+)", value):
            place = Path(path)
            if place.exists():
                # the pages of an index lie beside the files that they link to
                yield str(place.parent if place.name == "simple" else place)
