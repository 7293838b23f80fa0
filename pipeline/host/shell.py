"""A shell in an image that nobody deployed, without root: user_namespaces(7).

The image's entries go into a tmpfs of a mount namespace of its own, so nothing is written to any
file system, and nothing is left behind however the shell ends.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pipeline import beside
from pipeline.errors import NiftyError
from pipeline.host.binds import dropins
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.image.rootfs import Rootfs
from pipeline.progress import say
from pipeline.run import ProgramError, replace, run

if TYPE_CHECKING:
    from pathlib import Path

# Only one user is mapped, who is root inside and the caller outside.
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")

# $1 descriptor of a tar, $2 lines of a path of the host and one of the image each, to be bound
# read-only, $3 and $4 the Python that runs _PIVOT; then the words to run. The host's root is
# unmounted in the end: there is no way back to it as there would be from a chroot.
_ENTER = """set -e
mount -t tmpfs -o mode=755 nifty /tmp
tar --extract --no-same-owner --preserve-permissions --file="/proc/self/fd/$1" --directory=/tmp
# dash knows descriptors of one digit only
case $1 in ?) eval "exec $1<&-" ;; esac
printf '%s' "$2" | while read -r source place; do
    mount --bind -o ro "$source" "/tmp$place" && continue
    umount "/tmp$place" || :
    echo "no $source here: it cannot be bound read-only" >&2
done
cd /tmp
for node in null zero full random urandom tty; do
    : > dev/$node
    mount --bind /dev/$node dev/$node
done
ln -s /proc/self/fd dev/fd
mount -t proc proc proc || echo "no /proc here: the host hides part of its own" >&2
mkdir .host
if command -v pivot_root >/dev/null; then pivot_root . .host; else "$3" -I -c "$4"; fi
shift 4
exec chroot . /bin/sh -c "$(printf '%s\\n' 'hostname -F /etc/hostname' \\
    'umount -l /.host && rmdir /.host' 'exec "$@"')" sh "$@"
"""

# pivot_root(8) where a system leaves it out; glibc and musl have the call, without a header.
_PIVOT = """import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).pivot_root(b".", b".host") != 0:
    sys.exit(f"pivot_root: {os.strerror(ctypes.get_errno())}")
"""


class ShellError(NiftyError):
    """No shell here: the kernel or an administrator forbids what it needs."""


def enter(image: Path, command: str | None) -> int:
    """Run *command*, or a login shell, in *image*, as root of a user namespace; its status.

    It has a terminal of its own (see `beside`): an image may be anybody's. Raises ArchiveError
    for what is no image, ShellError where user namespaces are not to be had.
    """
    rootfs = archive.read(image)
    given = dropins.Bound()
    if rootfs.find(manifests.PATH) is not None:
        given = dropins.bound(manifests.read(rootfs, name=str(image)))
    for problem in given.problems:
        say(f"warning: {problem}")
    _check_allowed()
    descriptor = _held(Rootfs.of({e.path: e for e in (*given.entries, *rootfs)}.values()))
    binds = "".join(f"{bind.source} {bind.target}\n" for bind in given.binds)
    words = ("/bin/sh", "-l") if command is None else ("/bin/sh", "-c", command)
    argv = (
        *("env", "-i", f"TERM={os.environ.get('TERM', 'dumb')}", "HOME=/root", "USER=root"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *(*NAMESPACES, "--uts", "--ipc", "--", "sh", "-c", _ENTER, "sh", str(descriptor), binds),
        *(sys.executable, _PIVOT, *words),
    )
    return beside.run(lambda: replace(argv), keep=(descriptor,))


def _held(rootfs: Rootfs) -> int:
    """A descriptor of a tar of *rootfs* that has no name, open across execve(2)."""
    descriptor = os.memfd_create("image.tar", 0)
    with os.fdopen(os.dup(descriptor), "wb") as tar:
        tar.write(archive.write_tar(rootfs, mtime=0))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _check_allowed() -> None:
    try:
        run((*NAMESPACES, "--", "mount", "-t", "tmpfs", "nifty", "/tmp"))  # noqa: S108 (its own)
    except ProgramError as error:
        raise ShellError(
            f"this host gives no user namespace to user {os.geteuid()}:\n{error.message}",
            hint="sudo does it as root; or allow it: sysctl user.max_user_namespaces=10000, "
            "on Debian kernel.unprivileged_userns_clone=1, "
            "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0",
        ) from error
