"""The files of /etc, and what else of an image's settings is a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.image import inittab
from pipeline.image.rootfs import File, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.builder.recipes.image import Account, Image
    from pipeline.image.rootfs import Entry

ZONEINFO = "usr/share/zoneinfo"
LOCALTIME = "etc/localtime"
CONSOLE = "usr/lib/nifty/console"


def entries(image: Image) -> Iterator[Entry]:
    """The files of /etc that are made of *image*'s words, and what `console = true` adds."""
    own = {extra.path for extra in image.file}
    passwd = "".join(
        f"{a.name}:x:{a.uid}:{a.gid}:{a.gecos}:{a.home}:{a.shell}\n" for a in image.account
    )
    group = "".join(f"{g.name}:x:{g.gid}:{','.join(g.members)}\n" for g in image.group)
    day = image.epoch // 86400
    shadow = "".join(f"{a.name}:{a.password}:{day}:0:99999:7:::\n" for a in image.account)
    # a shell in this list is one people may log in with (shells(5)), so not /bin/false
    shells = sorted({a.shell for a in image.account if has_shell(a)} | {"/bin/sh", "/bin/ash"})
    texts = {
        "etc/group": group,
        "etc/hostname": f"{image.hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost {image.hostname}\n::1 localhost\n",
        inittab.PATH: _inittab(image),
        "etc/machine-id": "",
        "etc/os-release": _os_release(image),
        "etc/passwd": passwd,
        "etc/profile": _PROFILE,
        "etc/resolv.conf": "",
        "etc/shells": "".join(f"{shell}\n" for shell in shells),
    }
    for path, text in texts.items():
        if path not in own:
            yield File(path=path, content=text.encode())
    if image.timezone and LOCALTIME not in own:
        # not TZ: a command over SSH reads no profile, and musl and glibc alike look here without it
        yield Symlink(path=LOCALTIME, target=f"/{ZONEINFO}/{image.timezone}")
    if image.console:
        yield File(path=CONSOLE, content=_GETTY.encode(), mode=0o755)
    yield File(path="etc/shadow", content=shadow.encode(), mode=0o600)


# In a unit there is no console: a getty would end at once, and init start it for ever, even if it
# only fails to open /dev/console for a line that begins with that name. Where there is one, it is
# init's own (nspawn gives it away before init starts) and only CAP_SYS_ADMIN could take it over
# (TIOCSCTTY, ioctl_tty(2)): so script(1) puts a terminal in between.
_GETTY = """\
#!/bin/sh
# a login prompt on the console, if that is a terminal
[ -t 0 ] && exec script -q -c "exec /sbin/getty -L 0 - ${TERM:-vt100}" /dev/null
exec sleep infinity
"""

_PROFILE = """\
# read by login shells
export PATH=/usr/local/bin:/bin
export PS1='\\u@\\h:\\w\\$ '
umask 022
"""


def _inittab(image: Image) -> str:
    words = tuple(word.replace("{port}", str(image.port)) for word in image.ssh)
    lines = [
        "# id:runlevels:action:process, read by BusyBox init.",
        "# The SSH port is this instance's own: change other words freely, an upgrade keeps them.",
        inittab.respawn(words),
        *image.inittab,
        *((f"::respawn:/{CONSOLE}",) if image.console else ()),
    ]
    return "".join(f"{line}\n" for line in lines)


def _os_release(image: Image) -> str:
    fields = {
        "NAME": image.title,
        "ID": "nifty",
        "PRETTY_NAME": f"{image.title} {image.version}",
        "VERSION_ID": image.version,
        "IMAGE_ID": image.name,
        "IMAGE_VERSION": image.version,
    }
    return "".join(f'{key}="{value}"\n' for key, value in fields.items())


def has_shell(account: Account) -> bool:
    """Whether people could work with the shell of *account*."""
    return account.shell.rpartition("/")[2] not in ("false", "nologin")
