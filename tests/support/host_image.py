"""A small image for tests of the host's half: every kind of entry that a real one has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pipeline.host.roots import identity, images
from pipeline.image import archive, inittab, manifest
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO9xUfXKVBSHW+Kz4T5s2S5p7y7a+fOfJ1zW1k0q1b3Z test"
HOST_KEY = "etc/dropbear/dropbear_ed25519_host_key"
INITTAB = "::respawn:/sbin/dropbear -F -w -p 2200\n::respawn:/sbin/syslogd -n\n"

ENTRIES: tuple[Entry, ...] = (
    Symlink(path="bin", target="cbin"),
    Directory(path="cbin"),
    File(path="cbin/busybox", content=b"\x7fELF busybox", mode=0o755),
    Symlink(path="cbin/ls", target="busybox"),
    Symlink(path="cbin/sh", target="busybox"),
    Directory(path="etc"),
    Directory(path="etc/dropbear", mode=0o700),
    File(path="etc/hostname", content=b"nifty\n"),
    File(path="etc/hosts", content=b"127.0.0.1 localhost nifty\n::1 localhost\n"),
    File(path="etc/inittab", content=INITTAB.encode()),
    File(path="etc/machine-id", content=b""),
    File(path="etc/motd", content=b"welcome\n"),
    File(path="etc/shadow", content=b"root:*:::::::\n", mode=0o600),
    Directory(path="home"),
    Directory(path="home/luser", uid=1000, gid=1000),
    Directory(path="proc", mode=0o555),
    Symlink(path="sbin", target="cbin"),
    Directory(path="tmp", mode=0o1777),
    Directory(path="usr"),
    Directory(path="usr/lib"),
    Directory(path="usr/lib/nifty"),
)


def make_image(
    changed: Iterable[Entry] = (),
    *,
    without: Iterable[str] = (),
    title: str = "Small",
    version: str = "1",
    dropins: tuple[manifest.DropinRecord, ...] = (),
    binds: tuple[manifest.BindRecord, ...] = (),
    written: Literal[1, 2] = manifest.FORMAT,
    login: str = "luser",
) -> images.Image:
    """The image of ENTRIES, with *changed* put in their places and *without* some.

    *written* is the format of its manifest.
    """
    entries: dict[str, Entry] = {entry.path: entry for entry in (*ENTRIES, *changed)}
    for path in without:
        del entries[path]
    content = Rootfs.of(entries.values())
    account = manifest.LoginRecord(name=login, uid=1000, gid=1000, home="home/luser")
    described = manifest.Manifest(
        format=written,
        name="small",
        title=title,
        version=version,
        epoch=0,
        components=(),
        ssh=manifest.SshRecord(
            port=2200,
            file=inittab.PATH,
            program="/sbin/dropbear",
            word=4,
            host_key=HOST_KEY,
            accounts=(account,),
        ),
        shared=("cbin",),
        instance=("etc/hostname", "etc/hosts", inittab.PATH, "etc/machine-id", HOST_KEY),
        needs=manifest.NeedsRecord(
            architecture=os.uname().machine, mount_points=("proc",), binds=binds
        ),
        entries=tuple(manifest.record(entry) for entry in content),
        dropins=dropins,
    )
    rootfs = manifest.add(described, content)
    packed = archive.write_tar(rootfs, mtime=0)
    return images.Image(
        rootfs=rootfs,
        manifest=described,
        archive=packed,
        digest=rootfs.digest,
        blank=identity.blank(rootfs, described),
    )


def key_file(folder: Path) -> Path:
    """A file with one public key, KEY."""
    path = folder / "keys.pub"
    path.write_text(f"{KEY}\n")
    return path
