"""Backup and restore for real: what comes back is what was there, on whatever user range."""

# names of any bytes, which a Path would not hold:
# ruff: noqa: PTH102, PTH115, PTH118, PTH123, PTH208, PTH211

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import files
from pipeline.commands import deploy
from pipeline.files import Mover
from pipeline.host.backup import inventory, restorable, restore, save, scanning, sections
from pipeline.host.backup.restorable import RefusedError
from pipeline.host.backup.save import BackupError
from pipeline.host.doctor import facts
from pipeline.host.roots import access, images, undeploy
from pipeline.host.state import layout, records
from pipeline.host.state.layout import Layout, LockedError, locked
from pipeline.host.state.records import Runner, Share, Users
from pipeline.host.wanted import Wanted, named, numbered
from pipeline.image.rootfs import File
from pipeline.settings import Settings
from pipeline.tasks.actions import always
from tests.support import as_typed
from tests.support.host_image import HOST_KEY, key_file, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.host.state.records import Instance

ROOT = os.geteuid() == 0
USERS = Users.PRIVATE if ROOT else Users.HOST
IMAGE = make_image()
NEWER = make_image([File(path="etc/motd", content=b"newer\n")], version="2")
NAMES = ("nifty1", "nifty2", "nifty3")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not waited for: nothing here loses its power."""
    monkeypatch.setattr(files, "sync", lambda _folder: None)
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A host with three instances; nifty2 has all that a root can hold."""
    prefix = host(tmp_path / "old")
    deployed(prefix, 3)
    root = prefix / "nifty2"
    furnish(root, base(prefix, "2"))
    return prefix


def host(prefix: Path) -> Path:
    prefix.mkdir(mode=0o755)
    return prefix


def deployed(prefix: Path, count: int, **fields: Any) -> None:
    wanted = Wanted(
        targets=numbered(count, port=20000),
        prefix=prefix,
        users=fields.pop("users", USERS),
        authorized_keys=key_file(prefix.parent),
        **fields,
    )
    deploy.deploy(wanted, IMAGE)


def base(prefix: Path, suffix: str) -> int:
    one = records.read(Layout(prefix), suffix)
    assert one is not None
    return one.base


def furnish(root: Path, first: int) -> None:
    """Everything that a user of an instance may leave in his home."""
    home = os.fsencode(root / "home/luser")
    with open(home + b"/any\xff\x1b[2J\nname", "wb") as stream:
        stream.write(b"content")
    with open(home + b"/sparse", "wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"x" * 5000)
        stream.truncate(1 << 22)
    with open(home + b"/hole", "wb") as stream:
        stream.truncate(1 << 30)
    os.link(home + b"/sparse", home + b"/another")
    os.mkfifo(home + b"/pipe", 0o620)
    os.symlink(b"/etc/\xff", home + b"/link")
    os.mkdir(home + b"/shared", 0o1770)
    os.mkdir(home + b"/" + b"d" * 255)
    os.setxattr(home + b"/another", "user.a=b%", b"\0\n=value")
    long = home + b"/" + b"d" * 255 + b"/" + b"f" * 255
    with open(long, "wb"):
        pass
    if ROOT:
        os.chown(long, first, first)
    for number, name in enumerate(sorted(os.listdir(home))):
        path = home + b"/" + name
        if ROOT:
            os.chown(path, first + 1000 + number, first + number, follow_symlinks=False)
        time = 1_600_000_000_123_456_789 + number
        os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(home + b"/pipe", ns=(-1_500_000_001, -1_500_000_001))


def tree(root: Path, first: int) -> dict[bytes, tuple[object, ...]]:
    """All of a root: what stat(2) says with owners from *first* on, and contents."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for folder, folders, names in os.walk(top):
        for name in (*folders, *names, b"."):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(facts.st_mode) and facts.st_size < 1 << 25:
                with open(path, "rb") as stream:
                    content = stream.read()
            owner = (facts.st_uid - first, facts.st_gid - first)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if key.startswith("user.")
            }
            found[os.path.relpath(path, top)] = (
                *(facts.st_mode, *owner, facts.st_mtime_ns, content, attributes),
                facts.st_nlink if stat.S_ISREG(facts.st_mode) else 0,
                facts.st_size if stat.S_ISREG(facts.st_mode) else 0,
                facts.st_blocks if stat.S_ISREG(facts.st_mode) else 0,
            )
    return found


def saved(prefix: Path, *names: str, **words: Any) -> Path:
    """A backup of those below *prefix*."""
    path = prefix.parent / "fleet.tar.zst"
    with save.target(path, Layout(prefix), overwrite=True) as sink:
        save.backup(Layout(prefix), names or NAMES, sink, **words)
    return path


def wish(**fields: Any) -> scanning.Wish:
    fields.setdefault("host_users", USERS is Users.HOST)
    return scanning.Wish(**{"choose": tuple, **fields})


def restored(path: Path, prefix: Path, **fields: Any) -> restorable.Todo:
    """What was done to restore *path* below *prefix*."""
    here = Layout(prefix)
    with sections.opened(path) as archive:
        scanned = scanning.scan(archive, here, wish(**fields))
        todo = restore.restore(archive, scanned, here)
    restore.end(here)
    return todo


def planned(path: Path, prefix: Path, **fields: Any) -> restorable.Todo:
    """What would be done."""
    with sections.opened(path) as archive:
        here = Layout(prefix)
        return restorable.decide(scanning.scan(archive, here, wish(**fields)), here)


def problems(path: Path, prefix: Path, **fields: Any) -> tuple[str, ...]:
    with pytest.raises(RefusedError) as caught:
        planned(path, prefix, **fields)
    return caught.value.problems


def only(*suffixes: str) -> Callable[[Any], tuple[Instance, ...]]:
    return lambda listed: tuple(one for one in listed if one.suffix in suffixes)


def test_what_comes_back_is_what_was_there(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    restored(saved(old), new)
    for name in NAMES:
        suffix = name[5:]
        assert tree(new / name, base(new, suffix)) == tree(old / name, base(old, suffix))
    assert records.read_all(Layout(new)) == records.read_all(Layout(old))
    for path in ("known_hosts", f"images/{IMAGE.digest}.image", f"images/{IMAGE.digest}.json"):
        assert (new / ".nifty" / path).read_bytes() == (old / ".nifty" / path).read_bytes()
    assert (new / "cbin" / IMAGE.digest / "busybox").read_bytes() == b"\x7fELF busybox"
    assert list(Layout(new).new.iterdir()) == []


@pytest.mark.skipif(not ROOT, reason="only root gives user ranges")
def test_any_user_range_will_do(tmp_path: Path) -> None:
    old, new = host(tmp_path / "old"), host(tmp_path / "new")
    for prefix, name, port in ((old, "slick", 31000), (new, "one", 31001), (new, "two", 31002)):
        wanted = Wanted(
            targets=named([name], port=port),
            prefix=prefix,
            authorized_keys=key_file(tmp_path),
        )
        deploy.deploy(wanted, IMAGE)
    furnish(old / "niftyslick", base(old, "slick"))
    restored(saved(old, "niftyslick"), new)
    assert base(new, "slick") != base(old, "slick")
    assert tree(new / "niftyslick", base(new, "slick")) == tree(
        old / "niftyslick", base(old, "slick")
    )


@pytest.mark.skipif(not ROOT, reason="only root has others' ids in a list")
def test_access_lists_move_with_the_range(tmp_path: Path) -> None:
    old, new = host(tmp_path / "old"), host(tmp_path / "new")
    for prefix, name, port in ((old, "slick", 31000), (new, "one", 31001)):
        wanted = Wanted(
            targets=named([name], port=port),
            prefix=prefix,
            authorized_keys=key_file(tmp_path),
        )
        deploy.deploy(wanted, IMAGE)

    def listed(first: int) -> bytes:
        entries = [(0x01, 6, 0xFFFFFFFF), (0x02, 4, first + 1001), (0x04, 4, 0xFFFFFFFF)]
        entries += [(0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)

    path = "niftyslick/etc/motd"
    try:
        os.setxattr(old / path, "system.posix_acl_access", listed(base(old, "slick")))
    except OSError:
        pytest.skip("this file system has no access lists")
    restored(saved(old, "niftyslick"), new)
    found = os.getxattr(new / path, "system.posix_acl_access")
    assert found == listed(base(new, "slick"))
    assert base(new, "slick") != base(old, "slick")


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("runner", list(Runner) if ROOT else [Runner.NSPAWN])
def test_whatever_they_share_and_whatever_runs_them(
    tmp_path: Path, share: Share, runner: Runner
) -> None:
    old, new = host(tmp_path / "old"), host(tmp_path / "new")
    deployed(old, 2, share=share, runner=runner, boot=True)
    restored(saved(old, "nifty1", "nifty2"), new)
    assert records.read_all(Layout(new)) == records.read_all(Layout(old))
    assert tree(new / "nifty2", base(new, "2")) == tree(old / "nifty2", base(old, "2"))


def test_the_hosts_users_when_said_so(tmp_path: Path) -> None:
    old, new = host(tmp_path / "old"), host(tmp_path / "new")
    deployed(old, 1, users=Users.HOST)
    path = saved(old, "nifty1")
    (problem,) = problems(path, new, host_users=False)
    assert "say users=host" in problem
    restored(path, new, host_users=True)
    assert tree(new / "nifty1", 0) == tree(old / "nifty1", 0)


def test_some_of_them(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    restored(saved(old), new, choose=only("2"))
    assert [one.name for one in records.read_all(Layout(new))] == ["nifty2"]
    assert sorted(path.name for path in new.iterdir()) == [".nifty", "cbin", "nifty2"]


@pytest.mark.skipif(not ROOT, reason="runner=service wants user ranges, which only root gives")
def test_another_runner_and_boot(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    restored(saved(old), new, runner=Runner.SERVICE, boot=True)
    assert {(one.runner, one.boot) for one in records.read_all(Layout(new))} == {
        (Runner.SERVICE, True)
    }


def test_the_way_back_moves_too(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    as_typed.upgrade(old, ["1"], NEWER)
    restored(saved(old), new)
    as_typed.upgrade(new, ["1"], None)
    assert (new / "nifty1/etc/motd").read_bytes() == b"welcome\n"


def test_a_lost_way_back_does_not_stop_the_rest(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    as_typed.upgrade(old, ["1"], NEWER)
    (Layout(old).images / f"{IMAGE.digest}.image").write_bytes(b"")
    path = tmp_path / "one.tar.zst"
    with save.target(path, Layout(old), overwrite=False) as sink:
        report = save.backup(Layout(old), ["nifty1"], sink)
    assert "no way back" in report.notes[0]
    restored(path, new)
    one = records.read(Layout(new), "1")
    assert one is not None
    assert (one.image, one.previous) == (NEWER.digest, None)


def test_a_lost_image_is_told_with_its_instances(old: Path) -> None:
    (Layout(old).images / f"{IMAGE.digest}.image").write_bytes(b"")
    with pytest.raises(BackupError) as caught:
        saved(old)
    assert "nifty1 and 2 more: the image" in caught.value.problems[0]
    assert not (old.parent / "fleet.tar.zst").exists()


def test_the_fleets_key_moves_with_its_instances(tmp_path: Path) -> None:
    old, new, third = (host(tmp_path / name) for name in ("old", "new", "third"))
    key = access.make_fleet_key(Layout(prepared(old)))
    deployed(old, 1)
    one = records.read(Layout(old), "1")
    assert one is not None
    records.write(Layout(old), replace(one, fleet=True))
    path = saved(old, "nifty1")
    restored(path, new)
    moved = Layout(new).fleet_key
    assert moved.read_bytes() == Layout(old).fleet_key.read_bytes()
    assert stat.S_IMODE(moved.stat().st_mode) == 0o600
    assert moved.with_suffix(".pub").read_text().split()[:2] == key.lines[0].split()[:2]
    access.make_fleet_key(Layout(prepared(third)))
    (problem,) = problems(path, third)
    assert problem.startswith(f"{Layout(third).fleet_key} is another key")


def prepared(prefix: Path) -> Path:
    layout.prepare(Layout(prefix))
    return prefix


def test_a_key_that_nobody_needs_stays_at_home(old: Path) -> None:
    access.make_fleet_key(Layout(old))
    with sections.opened(saved(old)) as archive:
        assert archive.inventory().fleet_key is False


def test_the_file_is_for_its_owner_alone_and_the_same_each_time(old: Path) -> None:
    path = saved(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    assert saved(old).read_bytes() == first
    assert [one.name for one in path.parent.iterdir() if "part" in one.name] == []


def test_what_is_there_is_not_replaced_unless_said_so(old: Path) -> None:
    path = saved(old)
    before = path.read_bytes()
    with (
        pytest.raises(BackupError, match="there already") as caught,
        save.target(path, Layout(old), overwrite=False),
    ):
        pass
    assert caught.value.hint == "choose another name, or say overwrite=yes"
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["none/x", "nifty1/x", ".nifty/x", "pipe", "folder", "link"])
def test_places_for_no_backup(old: Path, place: str) -> None:
    os.mkfifo(old / "pipe")
    (old / "folder").mkdir()
    (old / "link").symlink_to(old / "nowhere")
    with (
        pytest.raises(BackupError, match="nothing was backed up"),
        save.target(old / place, Layout(old), overwrite=True),
    ):
        pass
    assert not (old / "nowhere").exists()


def test_a_backup_that_fails_leaves_what_was_there(old: Path) -> None:
    path = saved(old)
    before = path.read_bytes()
    with (
        pytest.raises(BackupError, match="No space left"),
        save.target(path, Layout(old), overwrite=True),
    ):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == [
        *("fleet.tar.zst", "keys.pub", "old")
    ]


def test_what_no_backup_holds_is_told(old: Path, tmp_path: Path) -> None:
    home = old / "nifty1/home/luser"
    first = base(old, "1")
    server = socket.socket(socket.AF_UNIX)
    here = os.open(home, os.O_RDONLY)
    server.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    (home / "tool").write_bytes(b"tool")
    if ROOT:
        for name in ("socket", "tool"):
            os.chown(home / name, first, first)
    (home / "tool").chmod(0o4755)
    path = tmp_path / "told.tar.zst"
    with save.target(path, Layout(old), overwrite=False) as sink:
        report = save.backup(Layout(old), NAMES, sink)
    server.close()
    assert report.notes == (
        "nifty1: /home/luser/socket: left out: a socket: whoever listens on it makes it anew",
        "nifty1: /home/luser/tool: mode 4755 becomes 0755",
    )
    new = host(tmp_path / "new")
    restored(path, new)
    assert not (new / "nifty1/home/luser/socket").exists()
    assert stat.S_IMODE((new / "nifty1/home/luser/tool").stat().st_mode) == 0o755


@pytest.mark.skipif(not ROOT, reason="only root owns what others made")
def test_what_belongs_to_nobody_inside_is_refused(old: Path) -> None:
    (old / "nifty1/etc/copied").write_text("by the host's root")
    (old / "nifty3/etc/copied").write_text("by the host's root")
    with pytest.raises(BackupError) as caught:
        saved(old)
    why = "belongs to 0:0 of the host, not to a user of the instance"
    assert caught.value.problems == tuple(f"{name}: /etc/copied {why}" for name in NAMES[::2])
    assert not (old.parent / "fleet.tar.zst").exists()


@pytest.mark.skipif(not ROOT, reason="only root mounts, and may look anywhere")
def test_links_lead_nowhere(old: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("SECRET")
    first = base(old, "1")
    home = old / "nifty1/home"
    shutil.rmtree(home / "luser")
    (home / "luser").symlink_to(secret)
    os.chown(home / "luser", first, first, follow_symlinks=False)
    new = host(tmp_path / "new")
    restored(saved(old), new)
    assert (new / "nifty1/home/luser").readlink() == secret
    assert sorted(path.name for path in secret.iterdir()) == ["key"]


def test_a_directory_without_an_end_is_cut_and_told(old: Path, tmp_path: Path) -> None:
    here = os.open(old / "nifty1/home/luser", os.O_RDONLY)
    first = base(old, "1")
    for _ in range(450):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if ROOT:
            os.fchown(here, first, first)
    os.close(here)
    path = tmp_path / "deep.tar.zst"
    with save.target(path, Layout(old), overwrite=False) as sink:
        report = save.backup(Layout(old), ["nifty1"], sink)
    assert [note.rpartition(": ")[2] for note in report.notes] == ["below 400 directories"]
    restored(path, host(tmp_path / "new"))


@pytest.mark.parametrize("kind", ["cut", "grown", "gone", "link", "pipe"])
def test_files_that_change_under_its_hands(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    victim = old / "nifty1/etc/motd"
    opened, done = os.open, list[bytes]()

    def change(path: Any, flags: int, *words: Any, **names: Any) -> int:
        # the file was looked at, and is about to be opened
        if path == b"motd" and not done:
            done.append(path)
            match kind:
                case "cut":
                    os.truncate(victim, 0)
                case "grown":
                    with victim.open("ab") as stream:
                        stream.write(b"more" * 1000)
                case "gone":
                    victim.unlink()
                case "link":
                    victim.unlink()
                    victim.symlink_to("/etc/passwd")
                case _:
                    victim.unlink()
                    os.mkfifo(victim)
        return opened(path, flags, *words, **names)

    path = tmp_path / "live.tar.zst"
    with save.target(path, Layout(old), overwrite=False) as sink:
        monkeypatch.setattr(os, "open", change)
        save.backup(Layout(old), ["nifty1"], sink, live=["nifty1"])
        monkeypatch.undo()
    assert done
    new = host(tmp_path / "new")
    todo = restored(path, new)
    assert "nifty1 ran while copied" in todo.warnings[0]
    there = new / "nifty1/etc/motd"
    expected = {"cut": b"", "grown": b"welcome\n" + b"more" * 1000}.get(kind)
    assert (there.read_bytes() if there.exists() else None) == expected


def test_all_that_stands_against_it_at_once(old: Path, tmp_path: Path) -> None:
    path = saved(old)
    new = host(tmp_path / "new")
    wanted = Wanted(
        targets=named(["other"], port=20002),
        prefix=new,
        users=USERS,
        authorized_keys=key_file(tmp_path),
    )
    deploy.deploy(wanted, IMAGE)
    (new / "nifty3").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 20001))
        taken.listen()
        found = problems(path, new)
    assert found == (
        "nifty3 is there and was not made by this program: it stays untouched",
        "nifty2: port 20002 is given to niftyother",
        f"nifty1: port 20001 is taken by user {os.geteuid()} of this host (ss -ltnp)",
    )


def test_names_that_are_taken(old: Path, tmp_path: Path) -> None:
    path = saved(old)
    assert problems(path, old) == tuple(
        f"{name}: is there already, it has the same host key" for name in NAMES
    )
    new = host(tmp_path / "new")
    deployed(new, 1)
    assert problems(path, new) == ("nifty1: the name is taken by another instance",)


def test_a_name_whose_state_is_damaged_is_taken(old: Path) -> None:
    path = saved(old)
    (Layout(old).instances / "2.json").write_bytes(b"")
    assert "nifty2: its state here is damaged; doit undeploy names=2 removes both" in problems(
        path, old
    )


def test_a_dry_run_touches_nothing(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    lines = planned(saved(old), new).lines()
    assert lines[0] == f"keep image {IMAGE.digest[:12]}"
    assert lines[1].startswith("restore nifty1, port 20001, users from ")
    assert len(lines) == 4
    assert list(new.iterdir()) == []


def test_a_disk_that_is_too_small(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(old)
    new = host(tmp_path / "new")
    gather = facts.gather

    def small(here: Layout, state: records.Known) -> Any:
        known = gather(here, state)
        room = replace(known.site.prefix, free_bytes=50_000, free_inodes=10)
        return replace(known, site=replace(known.site, prefix=room))

    monkeypatch.setattr(facts, "gather", small)
    found = problems(path, new)
    assert any(line.startswith("not enough disk: 3 instances take") for line in found)
    assert any(line.startswith("not enough inodes: 3 instances take") for line in found)


def test_a_full_disk_leaves_nothing(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(old)
    new = host(tmp_path / "new")
    write = os.pwrite

    def full(*_words: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(restore.StoppedError) as caught:
        restored(path, new)
    assert "home/luser/another: No space left on device" in caught.value.problems[0]
    assert sorted(one.name for one in new.iterdir()) == [".nifty", "cbin"]
    assert list((new / "cbin").iterdir()) == []
    monkeypatch.setattr(os, "pwrite", write)
    restored(path, new)
    assert tree(new / "nifty2", base(new, "2")) == tree(old / "nifty2", base(old, "2"))


def test_who_holds_the_lock_is_waited_for_or_not(old: Path, tmp_path: Path) -> None:
    path = saved(old)
    with locked(Layout(old)), pytest.raises(LockedError):
        saved(old, wait=False)
    assert inventory.FORMAT == 1
    assert path.exists()


CHANGES = ("mkdir", "symlink", "rename", "replace", "unlink", "link", "fchmod", "utime", "write")


def killed_at(step: int, path: Path, prefix: Path) -> bool:
    """Restore in a process that ends just before change *step*; whether it came so far."""

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **names: object) -> Any:
            nonlocal step
            if step == 0:
                os._exit(9)
            step -= 1
            return change(*args, **names)

        return call

    child = os.fork()
    if child == 0:
        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        Mover.move = counted(Mover.move)  # type: ignore[method-assign]
        try:
            restored(path, prefix)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.timeout(300)  # restores once for each step there is
def test_killed_anywhere_it_is_absent_or_whole_and_finished_by_the_next(tmp_path: Path) -> None:
    old = host(tmp_path / "old")
    deployed(old, 2)
    path = saved(old, "nifty1", "nifty2")
    expected = {name: tree(old / name, base(old, name[5:])) for name in NAMES[:2]}
    step, unfinished, seen = 0, True, set[int]()
    while unfinished:
        new = host(tmp_path / f"new{step}")
        unfinished = killed_at(step, path, new)
        there = [one for one in records.read_all(Layout(new)) if (new / one.name).exists()]
        seen.add(len(there))
        for one in there:
            assert tree(new / one.name, one.base) == expected[one.name]
        assert all(
            not (new / name).exists() for name in NAMES if name not in {one.name for one in there}
        )
        if unfinished:
            restored(path, new)
        assert records.read_all(Layout(new)) == records.read_all(Layout(old))
        for name, whole in expected.items():
            assert (step, tree(new / name, base(new, name[5:]))) == (step, whole)
        assert not Layout(new).restoring.exists()
        shutil.rmtree(new)
        step += 2
    assert step > 60
    assert seen == {0, 1, 2}


def test_what_was_restored_can_be_removed(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    restored(saved(old), new)
    undeploy.undeploy(new, None)
    assert sorted(path.name for path in new.iterdir()) == [".nifty", "cbin"]
    assert images.is_stored(Layout(new), IMAGE) is False


def test_the_host_key_is_the_same(old: Path, tmp_path: Path) -> None:
    new = host(tmp_path / "new")
    restored(saved(old), new)
    assert (new / "nifty1" / HOST_KEY).read_bytes() == (old / "nifty1" / HOST_KEY).read_bytes()


def test_a_preview_lists_what_a_backup_writes_and_bounds_its_size(
    old: Path, tmp_path: Path
) -> None:
    before = tree(old / "nifty2", base(old, "2"))
    preview = save.preview(Layout(old), NAMES)
    with (tmp_path / "one.tar.zst").open("wb") as sink:
        report = save.backup(Layout(old), NAMES, sink)
    assert preview.saved == report.saved
    assert list(preview.images) == [IMAGE.digest]
    # nifty2 has a file of 1 GB with nothing in it
    assert preview.saved[1].size > 1 << 30
    assert report.size <= preview.size < 1 << 23
    assert tree(old / "nifty2", base(old, "2")) == before


def test_a_preview_refuses_what_a_backup_refuses(old: Path) -> None:
    with pytest.raises(BackupError, match="nifty7: not deployed any more"):
        save.preview(Layout(old), ["nifty7"])


@pytest.mark.skipif(not ROOT, reason="needs root, as a backup")
def test_a_preview_is_told_and_nothing_is_written(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "one.tar.zst"
    plain = Settings(prefix=old, dry=True)
    for given in (plain, replace(plain, to=str(to)), replace(plain, to=str(to), format="json")):
        [(act, settings)] = always("backup")(given)["actions"]
        assert act(*settings) is None
        told = capsys.readouterr()
        assert [name for name in NAMES if name in told.out] == list(NAMES)
        assert re.search(
            r"^3 would be backed up with 1 image: [\d.]+ MB at most", told.err, re.MULTILINE
        )
    assert not to.exists()
    to.write_text("there already")
    [(act, settings)] = always("backup")(Settings(prefix=old, dry=True, to=str(to)))["actions"]
    assert "there already" in act(*settings).message
