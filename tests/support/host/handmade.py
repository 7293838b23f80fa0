"""Instances made by hand, with no part of deploying: run inside the test machine, as root.

`python -m tests.support.host.handmade PREFIX RUNNER SUFFIX...` writes what deploy would (roots,
state, environments, ssh_config) and installs the units. The suffix `_` stands for the nameless
instance, and the one called `host` has the host's users.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline.host.roots import access, identity
from pipeline.host.state import clients, layout, records
from pipeline.host.units import runners, sync, unit_files
from pipeline.image import archive, inittab, manifest
from pipeline.image.rootfs import Directory, File, Rootfs, Symlink
from pipeline.paths import PROJECT, beneath

IMAGE = PROJECT / "artifacts" / f"nifty-{os.uname().machine}.tar.zst"


def main(prefix: Path, chosen: records.Runner, suffixes: list[str]) -> None:
    """Make the instances and install their units."""
    rootfs = archive.read(IMAGE)
    about = manifest.read(rootfs, name=IMAGE.name)
    where = layout.Layout(prefix)
    layout.prepare(where)
    (where.state / "units").mkdir(exist_ok=True)
    lines = access.make_fleet_key(where).lines
    shared = where.cbin(rootfs.digest)
    shared.mkdir(exist_ok=True)
    for entry in rootfs:
        if entry.path.startswith("cbin/"):
            put(shared, entry.path.removeprefix("cbin/"), entry, base=0)
    for slot, suffix in enumerate(suffixes, start=1):
        one, key = instance(suffix.strip("_"), slot, rootfs.digest, chosen)
        make_root(where.root(one.name), rootfs, about, one, (key, "\n".join(lines) + "\n"))
        for path, text in unit_files.files(one, where, unit_files.binds_of(about)).items():
            path.write_text(text)
        records.write(where, one)
    clients.write(where, records.read_all(where))
    sync.support(where, (runners.RUNNERS[chosen],))
    served = ((runners.RUNNERS[chosen], suffix.strip("_")) for suffix in suffixes)
    unit_files.install(served, prefix)


def instance(
    suffix: str, slot: int, digest: str, chosen: records.Runner
) -> tuple[records.Instance, bytes]:
    """An instance on port 2200 + *slot* and its host key in Dropbear's format."""
    key = identity.new_host_key()
    # which runner=service refuses to do
    is_host = suffix == "host" and chosen is records.Runner.NSPAWN
    users = records.Users.HOST if is_host else records.Users.PRIVATE
    one = records.Instance(
        suffix=suffix,
        number=slot,
        port=2200 + slot,
        image=digest,
        users=users,
        base=records.base_of(slot, users),
        host_key=identity.public_line(key.public),
        runner=chosen,
        machine_id=identity.new_machine_id(),
        login="luser",
        fleet=True,
    )
    return one, key.dropbear


def make_root(
    root: Path,
    rootfs: Rootfs,
    about: manifest.Manifest,
    one: records.Instance,
    secrets: tuple[bytes, str],
) -> None:
    """The root of *one*; *secrets* are its host key and authorized_keys."""
    root.mkdir()
    os.chown(root, one.base, one.base)
    for entry in rootfs:
        if not entry.path.startswith("cbin/"):
            put(root, entry.path, entry, base=one.base)
    table = beneath(root, inittab.PATH)
    table.write_text(inittab.with_port(table.read_text(), about.ssh.place, one.port))
    put(root, about.ssh.host_key, File(path="-", content=secrets[0], mode=0o600), base=one.base)
    for account in about.ssh.accounts:
        owner = {"uid": account.uid, "gid": account.gid}
        put(root, f"{account.home}/.ssh", Directory(path="-", mode=0o700, **owner), base=one.base)
        keys = File(path="-", content=secrets[1].encode(), mode=0o600, **owner)
        put(root, f"{account.home}/.ssh/authorized_keys", keys, base=one.base)


def put(root: Path, name: str, entry: Directory | File | Symlink, *, base: int) -> None:
    """One entry below *root*, its owner shifted by *base*."""
    path = beneath(root, name)
    match entry:
        case Directory():
            path.mkdir(exist_ok=True)
        case File():
            path.write_bytes(entry.content)
        case Symlink():
            path.unlink(missing_ok=True)
            path.symlink_to(entry.target)
    os.chown(path, base + entry.uid, base + entry.gid, follow_symlinks=False)
    if not isinstance(entry, Symlink):
        path.chmod(entry.mode)


if __name__ == "__main__":
    main(Path(sys.argv[1]), records.Runner(sys.argv[2]), sys.argv[3:])
