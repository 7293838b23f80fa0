"""What this host's distribution calls the packages that bring a program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterable

# By the words of ID and ID_LIKE in os-release(5): a column below, and what installs its packages.
_FAMILIES = {
    "debian": (0, "apt-get install"),
    "ubuntu": (0, "apt-get install"),
    "fedora": (1, "dnf install"),
    "rhel": (1, "dnf install"),
    "centos": (1, "dnf install"),
    "ol": (1, "dnf install"),
    "arch": (2, "pacman -S"),
    "suse": (3, "zypper install"),
    "opensuse": (3, "zypper install"),
    "alpine": (4, "apk add"),
}

# By ID alone: those that boot with another init; ID_LIKE names what they were made from.
_WITHOUT_SYSTEMD = frozenset(("alpine", "artix", "chimera", "devuan", "postmarketos", "void"))

_COREUTILS = (
    *("basename", "cat", "chmod", "chroot", "cp", "dd", "dirname", "echo", "expr", "ln", "ls"),
    *("mkdir", "mktemp", "mv", "od", "rm", "rmdir", "sort", "tail", "touch", "tr", "uname"),
    *("uniq", "wc"),
)

# Program -> its package on Debian, Fedora, Arch, openSUSE, Alpine; empty where there is none.
_PACKAGES = {
    **dict.fromkeys(_COREUTILS, ("coreutils",) * 5),
    "awk": ("mawk", "gawk", "gawk", "gawk", "gawk"),
    "cmp": ("diffutils",) * 5,
    "diff": ("diffutils",) * 5,
    "find": ("findutils",) * 5,
    "grep": ("grep",) * 5,
    "login": ("login", "util-linux", "util-linux", "util-linux", "util-linux-login"),
    "mount": ("mount", "util-linux", "util-linux", "util-linux", "mount"),
    "nft": ("nftables",) * 5,
    "sed": ("sed",) * 5,
    "setpriv": (*("util-linux",) * 4, "setpriv"),
    "sh": ("dash", "bash", "bash", "bash", "busybox-binsh"),
    "systemd-nspawn": (*("systemd-container",) * 2, "systemd", "systemd-container", ""),
    "unshare": (*("util-linux",) * 4, "util-linux-misc"),
    "xargs": ("findutils",) * 5,
}


def release(root: Path) -> str:
    """The text of os-release below *root*, empty if there is none (os-release(5))."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            return beneath(root, name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    return ""


def has_systemd(release: str) -> bool:
    """Whether the distribution with this os-release can be booted by systemd, as far as known."""
    own = re.search(r'^ID=["\']?([^"\'\n]*)', release, flags=re.MULTILINE)
    return own is None or own[1] not in _WITHOUT_SYSTEMD


def boot_here() -> str:
    """`boot`, for this host."""
    return boot(release(Path("/")))


def boot(release: str) -> str:
    """What to do where systemd is not PID 1, on a host with this os-release."""
    if has_systemd(release):
        return "boot this host with systemd (a container or chroot is not enough)"
    return (
        "this distribution has no systemd: it builds images; deploy them, image=PATH, on a host"
        " that has it, such as Debian, Fedora, Arch or openSUSE"
    )


def install_here(programs: Iterable[str]) -> str:
    """`install`, for this host."""
    return install(programs, release(Path("/")))


def install(programs: Iterable[str], release: str) -> str:
    """What brings *programs* to a host with this os-release, as its administrator types it.

    On a distribution that is not known here, in words.
    """
    wanted = tuple(programs)
    kinds = re.findall(r'^(?:ID|ID_LIKE)=["\']?([^"\'\n]*)', release, flags=re.MULTILINE)
    words = [word for kind in kinds for word in kind.split()]
    # openSUSE's ID is opensuse-leap, opensuse-tumbleweed
    known = (_FAMILIES.get(word.partition("-")[0]) for word in words)
    family = next((one for one in known if one), None)
    if family is not None:
        column, command = family
        packages = [_PACKAGES[program][column] for program in wanted]
        if all(packages):
            return f"{command} {' '.join(dict.fromkeys(packages))}"
    return f"install what brings {', '.join(wanted)}"
