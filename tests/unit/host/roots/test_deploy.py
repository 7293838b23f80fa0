"""Deploying for real: what lies where afterwards, and again, and after being killed."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import files
from pipeline.commands import deploy
from pipeline.files import Mover
from pipeline.host.doctor.rows import PlanError
from pipeline.host.roots import identity, images
from pipeline.host.roots.access import Access
from pipeline.host.roots.deploy import DeployError
from pipeline.host.state import clients, kept, records
from pipeline.host.state.layout import Layout, LockedError, locked, prepare
from pipeline.host.state.records import Share, Users
from pipeline.host.wanted import Wanted, named, numbered
from pipeline.image import archive
from pipeline.image.archive import ArchiveError, Limits
from pipeline.image.manifest import ManifestError
from pipeline.image.rootfs import File
from pipeline.run import run
from tests.support.as_typed import planned
from tests.support.host_image import HOST_KEY, KEY, key_file, make_image
from tests.support.host_tree import expected, seen
from tests.support.images import file, tarball
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.roots.images import Image
    from pipeline.host.wanted import Target

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST


@pytest.fixture(scope="module")
def image() -> Image:
    return make_image()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o755)
    return made


def wanted(prefix: Path, targets: tuple[Target, ...], *, share: Share = Share.CBIN) -> Wanted:
    # far from ports that a host may have listeners on
    keys = prefix.parent / "keys.pub"
    keys.write_text(f"{KEY}\n")
    return Wanted(targets=targets, prefix=prefix, share=share, users=USERS, authorized_keys=keys)


def counted(prefix: Path, count: int, *, share: Share = Share.CBIN) -> Wanted:
    return wanted(prefix, numbered(count, port=20000), share=share)


def check_whole(prefix: Path, image: Image, suffix: str) -> None:
    """The instance is exactly what was to be made of the image."""
    one = records.read(Layout(prefix), suffix)
    assert one is not None
    root = prefix / one.name
    blob = (root / HOST_KEY).read_bytes()
    key = identity.HostKey(blob[19:51], blob[51:])
    assert one.host_key == identity.public_line(key.public)
    blank = identity.blank(image.rootfs, image.manifest)
    contents = dict(
        zip(blank.paths, blank.fill(one.name, one.port, one.machine_id, key), strict=True)
    )
    entries = [
        File(
            path=entry.path,
            content=contents.get(entry.path, entry.content),
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
        )
        if isinstance(entry, File)
        else entry
        for entry in images.entries_of(image, one.share, Access(lines=(KEY,)))
    ]
    assert seen(root) == expected(entries, one.base)


def check_prefix(prefix: Path, image: Image, count: int) -> None:
    """All of them are whole, nothing else is there, and clients know them all."""
    layout = Layout(prefix)
    for number in range(1, count + 1):
        check_whole(prefix, image, str(number))
    assert list(layout.new.iterdir()) == []
    names = {f"nifty{number}" for number in range(1, count + 1)}
    assert {path.name for path in prefix.iterdir()} == {*names, "cbin", ".nifty"}
    assert layout.known_hosts.read_text().count("\n") == count
    assert not planned(counted(prefix, count), image).actions


@pytest.mark.parametrize("share", list(Share))
def test_instances_are_what_the_image_says(prefix: Path, image: Image, share: Share) -> None:
    assert deploy.deploy(counted(prefix, 5, share=share), image).created == 5
    check_prefix(prefix, image, 5)


@ROOT
def test_the_root_belongs_to_its_range(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 2), image)
    facts = (prefix / "nifty2").stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (655360, 655360, 0o755)


def test_the_shared_part_is_written_once(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 2), image)
    folder = prefix / "cbin" / image.digest
    assert sorted(path.name for path in folder.iterdir()) == ["busybox", "ls", "sh"]
    assert (folder / "ls").readlink() == Path("busybox")
    assert stat.S_IMODE((folder / "busybox").stat().st_mode) == 0o755


def test_the_stored_image_is_the_image(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 1), image)
    assert images.stored(Layout(prefix), image.digest) == image


def test_the_stored_manifest_is_the_images(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 1), image)
    assert kept.described(Layout(prefix), image.digest) == image.manifest


def stamps(prefix: Path) -> dict[str, tuple[int, int]]:
    """What changes with every write; reading moves st_atime only."""
    facts = {str(path): path.lstat() for path in prefix.rglob("*") if path.name != "lock"}
    return {path: (one.st_ino, one.st_ctime_ns) for path, one in facts.items()}


def test_deploying_again_changes_nothing(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    before = stamps(prefix)
    assert deploy.deploy(counted(prefix, 3), image).created == 0
    assert stamps(prefix) == before


def test_more_are_added_to_what_is_there(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 2), image)
    before = records.read(Layout(prefix), "1")
    assert deploy.deploy(counted(prefix, 4), image).created == 2
    assert records.read(Layout(prefix), "1") == before
    check_prefix(prefix, image, 4)


def test_fewer_remove_nothing(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    assert deploy.deploy(counted(prefix, 1), image).created == 0
    check_prefix(prefix, image, 3)


def test_a_named_one_has_its_port(prefix: Path, image: Image) -> None:
    deploy.deploy(wanted(prefix, named(["slick"], port=2100)), image)
    assert "-p 2100" in (prefix / "niftyslick/etc/inittab").read_text()


def test_a_foreign_directory_stays(prefix: Path, image: Image) -> None:
    (prefix / "nifty2").mkdir()
    with pytest.raises(PlanError, match="nifty2 is there and was not made by this program"):
        deploy.deploy(counted(prefix, 3), image)
    assert [path.name for path in prefix.iterdir() if path.name.startswith("nifty")] == ["nifty2"]


def test_a_dry_run_touches_nothing(prefix: Path, image: Image) -> None:
    assert len(planned(counted(prefix, 2), image).actions) == 4
    assert list(prefix.iterdir()) == []


def test_no_two_instances_share_an_identity(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 20), image)
    known = records.read_all(Layout(prefix))
    assert len({one.host_key for one in known}) == 20
    assert len({one.machine_id for one in known}) == 20


def test_another_run_is_named(prefix: Path, image: Image) -> None:
    layout = Layout(prefix)
    prepare(layout)
    with locked(layout), pytest.raises(LockedError, match=f"process {os.getpid()}"):
        deploy.deploy(counted(prefix, 1), image, wait=False)


def test_the_second_of_two_runs_finds_all_done(prefix: Path, image: Image) -> None:
    both = counted(prefix, 40)  # writes the file with the key, which neither may find half written
    child = os.fork()
    if child == 0:
        made = 99  # it failed
        try:
            made = deploy.deploy(both, image).created
        finally:
            os._exit(made)
    here = deploy.deploy(both, image).created
    there = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert {here, there} == {0, 40}
    check_prefix(prefix, image, 40)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_openssh_takes_host_port_and_key_from_ssh_config(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    layout = Layout(prefix)
    told = run(["ssh", "-F", layout.ssh_config, "-G", "nifty2"]).stdout.splitlines()
    assert {
        "hostname 127.0.0.1",
        "port 20002",
        "user luser",
        "stricthostkeychecking true",
        f"userknownhostsfile {layout.known_hosts}",
    } <= set(told)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_openssh_never_asks_the_hosts_own_server(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    config = Layout(prefix).ssh_config
    told = run(["ssh", "-F", config, "-G", "niftyunknown"]).stdout.splitlines()
    assert {"port 1", "hostname 127.0.0.1"} <= set(told)
    tried = run(["ssh", "-F", config, "niftyunknown", "true"], check=False)
    assert tried.returncode == 255
    assert "there is no such instance: status lists those there are" in tried.stderr
    known = run(["ssh", "-F", config, "-G", "nifty3"]).stdout
    assert "proxycommand" not in known
    assert "preferredauthentications publickey\n" in known


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_ten_thousand_instances_fit_into_ssh_config(prefix: Path) -> None:
    many = (make_instance(str(n), number=n, port=2200 + n) for n in range(1, 10_001))
    config = prefix / "ssh_config"
    config.write_text(clients.ssh_config(many, Layout(prefix)))
    told = run(["ssh", "-F", config, "-G", "nifty9999"]).stdout.splitlines()
    assert "port 12199" in told
    assert "port 1" in run(["ssh", "-F", config, "-G", "nifty10001"]).stdout.splitlines()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_openssh_finds_the_host_key(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    layout = Layout(prefix)
    told = run(["ssh-keygen", "-F", "[127.0.0.1]:20002", "-f", layout.known_hosts]).stdout
    one = records.read(layout, "2")
    assert one is not None
    assert one.host_key in told


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_without_a_key_of_the_users_the_fleet_gets_one(
    prefix: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.host.roots.access.keys_of_user", lambda _home: None)
    asked = Wanted(targets=numbered(1, port=20000), prefix=prefix, users=USERS)
    report = deploy.deploy(asked, image)
    assert report.notes == (
        f"no public key of yours was found; {prefix}/.nifty/fleet_key opens them all",
    )
    told = run(["ssh", "-F", Layout(prefix).ssh_config, "-G", "nifty1"]).stdout
    assert f"identityfile {prefix}/.nifty/fleet_key" in told


def test_lost_lists_are_written_again(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    before = Layout(prefix).known_hosts.read_text()
    Layout(prefix).known_hosts.unlink()
    deploy.deploy(counted(prefix, 3), image)
    assert Layout(prefix).known_hosts.read_text() == before


def test_a_root_that_is_lost_is_made_again(prefix: Path, image: Image) -> None:
    deploy.deploy(counted(prefix, 3), image)
    shutil.rmtree(prefix / "nifty2")
    assert deploy.deploy(counted(prefix, 3), image).created == 1
    check_prefix(prefix, image, 3)


def test_what_a_dead_run_left_is_removed(prefix: Path, image: Image) -> None:
    prepare(Layout(prefix))
    (Layout(prefix).new / "123/nifty1/etc").mkdir(parents=True)
    assert deploy.deploy(counted(prefix, 1), image).created == 1
    check_prefix(prefix, image, 1)


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_deploy_is_finished_by_the_next(prefix: Path, image: Image, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (a place to be killed at, not a secret)
    count = 60
    for _kill in range(3):
        child = os.fork()
        if child == 0:
            try:
                deploy.deploy(counted(prefix, count), image)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # its workers may still be at their last instance; what has its name is whole
        for path in prefix.glob("nifty*"):
            check_whole(prefix, image, path.name.removeprefix("nifty"))
    deploy.deploy(counted(prefix, count), image)
    check_prefix(prefix, image, count)


def test_ctrl_c_says_what_is_done(
    prefix: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()
    fill = identity.Blank.fill

    def slow(*args: object, **kwargs: object) -> tuple[bytes, ...]:
        if "nifty3" in args:
            os.kill(parent, signal.SIGINT)
            time.sleep(0.2)
        return fill(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(identity.Blank, "fill", slow)
    with pytest.raises(DeployError, match="of 400 instances were made") as caught:
        deploy.deploy(counted(prefix, 400), image)
    assert caught.value.problems == ("interrupted",)
    monkeypatch.undo()
    assert list(Layout(prefix).new.iterdir()) == []
    deploy.deploy(counted(prefix, 400), image)
    check_prefix(prefix, image, 400)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own."""
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", folder])
    try:
        yield folder
    finally:
        run(["umount", folder])


@ROOT
@pytest.mark.integration
def test_a_full_disk_leaves_whole_instances(tmp_path: Path, image: Image) -> None:
    with mounted(tmp_path / "home", "size=2m") as prefix:
        # the plan would see it coming: something else fills the disk meanwhile
        with (
            monkeyed_space(),
            pytest.raises(DeployError, match="No space left on device") as caught,
        ):
            deploy.deploy(counted(prefix, 200), image)
        done = sorted(path.name for path in prefix.glob("nifty*"))
        assert f"deploy stopped: {len(done)} of 200 instances were made" in caught.value.message
        assert list(Layout(prefix).new.iterdir()) == []
        for name in done:
            check_whole(prefix, image, name.removeprefix("nifty"))
        run(["mount", "-o", "remount,size=200m", prefix])
        deploy.deploy(counted(prefix, 200), image)
        check_prefix(prefix, image, 200)


@ROOT
@pytest.mark.integration
def test_a_disk_without_inodes_leaves_whole_instances(tmp_path: Path, image: Image) -> None:
    with mounted(tmp_path / "home", "nr_inodes=300") as prefix:
        with monkeyed_space(), pytest.raises(DeployError, match="No space left on device"):
            deploy.deploy(counted(prefix, 40), image)
        for path in prefix.glob("nifty*"):
            check_whole(prefix, image, path.name.removeprefix("nifty"))
        run(["mount", "-o", "remount,nr_inodes=100000", prefix])
        deploy.deploy(counted(prefix, 40), image)
        check_prefix(prefix, image, 40)


@ROOT
@pytest.mark.integration
def test_a_small_disk_is_seen_beforehand(tmp_path: Path, image: Image) -> None:
    with mounted(tmp_path / "home", "nr_inodes=300") as prefix:
        with pytest.raises(PlanError, match="not enough inodes: 40 instances take"):
            deploy.deploy(counted(prefix, 40), image)
        assert list(prefix.glob("nifty*")) == []


@contextmanager
def monkeyed_space() -> Iterator[None]:
    """A plan that does not look at the room there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.host.doctor.limits.prefix_rows", lambda *_args: ())
        yield


def test_memory_does_not_grow_with_the_count(prefix: Path, image: Image) -> None:
    key_file(prefix.parent)
    peaks = []
    for count in (100, 1000):
        child = os.fork()
        if child == 0:
            try:
                deploy.deploy(counted(prefix, count), image)
            finally:
                os._exit(0)
        _pid, _status, usage = os.wait4(child, 0)
        peaks.append(usage.ru_maxrss)
    assert peaks[1] - peaks[0] < 4096  # KiB: the plan's and the lists' lines, no roots


def test_contents_before_names_and_image_and_states_before_roots_before_lists(
    prefix: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced to the disk twice: when nothing has a name yet, and when all have."""
    layout = Layout(prefix)
    synced: list[set[str]] = []
    before_root: list[set[str]] = []
    after_root: list[set[str]] = []
    move = Mover.move

    def names() -> set[str]:
        folders = (prefix, layout.state, layout.images, layout.shared, layout.instances)
        return {path.name for folder in folders for path in folder.iterdir()}

    def moved(mover: Mover, *words: Any) -> None:
        before_root.append(names())
        move(mover, *words)
        after_root.append(names())

    monkeypatch.setattr(files, "sync", lambda _folder: synced.append(names()))
    monkeypatch.setattr(Mover, "move", moved)
    deploy.deploy(counted(prefix, 2), image)
    kept_here = {image.digest, f"{image.digest}.image", f"{image.digest}.json"}
    lists = {"known_hosts", "ssh_config"}
    assert len(synced) == 2
    assert synced[0] == {".nifty", "cbin", "images", "instances", "lock", "new"}
    assert before_root[0] == synced[0] | kept_here | {"1.json", "2.json"}
    assert after_root[-1] == before_root[0] | {"nifty1", "nifty2"}
    assert synced[1] == after_root[-1] | lists


def test_an_archive_and_its_files_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "DEFAULT_LIMITS", Limits(max_bytes=1 << 20))
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(tarball(file(b"zeros", bytes(600_000))))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ArchiveError, match=r"plain: .*more than \d+ bytes"):
        images.load(plain)
    with pytest.raises(ManifestError, match="no manifest"):
        images.load(packed)
