"""A shell in an image that nobody deployed, without root: user_namespaces(7).

The image's entries go into a tmpfs of a mount namespace of its own, so nothing is written to any
file system, and nothing is left behind however the shell ends.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.image import archive
from pipeline.run import ProgramError, run

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.image.rootfs import Rootfs

# Only one user is mapped, who is root inside and the caller outside.
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")

# $1 descriptor of a tar, then the words to run. The host's root is unmounted in the end: there is
# no way back to it as there would be from a chroot.
_ENTER = """set -e
mount -t tmpfs -o mode=755 nifty /tmp
tar --extract --no-same-owner --preserve-permissions --file="/proc/self/fd/$1" --directory=/tmp
# dash knows descriptors of one digit only
case $1 in ?) eval "exec $1<&-" ;; esac
shift
cd /tmp
for node in null zero full random urandom tty; do
    : > dev/$node
    mount --bind /dev/$node dev/$node
done
ln -s /proc/self/fd dev/fd
mount -t proc proc proc || echo "no /proc here: the host hides part of its own" >&2
mkdir .host
pivot_root . .host
exec chroot . /bin/sh -c "$(printf '%s\\n' 'hostname -F /etc/hostname' \\
    'umount -l /.host && rmdir /.host' 'exec "$@"')" sh "$@"
"""


class ShellError(NiftyError):
    """No shell here: the kernel or an administrator forbids what it needs."""


def argv(image: Path, command: str | None) -> tuple[str, ...]:
    """The words that run *command*, or a login shell, in *image*, as root of a user namespace.

    They refer to a descriptor of this process, so they are for `run.replace`. Raises ArchiveError
    for what is no image, ShellError where user namespaces are not to be had.
    """
    rootfs = archive.read(image)
    _check_allowed()
    descriptor = _held(rootfs)
    words = ("/bin/sh", "-l") if command is None else ("/bin/sh", "-c", command)
    return (
        *("env", "-i", f"TERM={os.environ.get('TERM', 'dumb')}", "HOME=/root", "USER=root"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *(*NAMESPACES, "--uts", "--ipc", "--", "sh", "-c", _ENTER, "sh", str(descriptor), *words),
    )


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
