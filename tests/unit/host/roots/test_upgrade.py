"""Upgrades for real: what is replaced, what stays, and the way back."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import deploy
from pipeline.host.doctor import facts
from pipeline.host.roots import upgrade as upgrading
from pipeline.host.roots.differences import Kept
from pipeline.host.roots.undeploy import Remove, UndeployError, plan_undeploy, undeploy
from pipeline.host.roots.upgrade import Move, UpgradeError, plan_upgrade
from pipeline.host.state import records
from pipeline.host.state.layout import Layout
from pipeline.host.state.records import Known, Share, Users
from pipeline.host.wanted import Wanted, numbered
from pipeline.image import manifest
from pipeline.image.rootfs import Directory, File, Symlink
from tests.support.as_typed import upgrade
from tests.support.host_image import HOST_KEY, INITTAB, KEY, make_image
from tests.support.host_tree import seen
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST
OLD = make_image(
    [
        Directory(path="opt"),
        File(path="opt/gone", content=b"gone"),
        Directory(path="var", uid=1000, gid=1000),
    ],
    written=1,  # as images were, which hosts have
)
NEW = make_image(
    [
        File(path=manifest.NOTICE, content=b"who wrote what\n"),
        File(path="cbin/busybox", content=b"\x7fELF newer", mode=0o755),
        File(path="etc/motd", content=b"welcome again\n"),
        File(path="etc/added", content=b"added\n", mode=0o600, uid=1000, gid=1000),
        File(path="etc/inittab", content=INITTAB.replace("syslogd -n", "syslogd -n -b 1").encode()),
        Directory(path="srv", mode=0o1777),
        Symlink(path="srv/link", target="../etc"),
        Directory(path="var", mode=0o700, uid=1001, gid=1001),
    ],
    version="2",
)
EVERY = (OLD.digest, NEW.digest)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Three instances of the old image."""
    made = tmp_path / "home"
    made.mkdir(mode=0o755)
    deploy.deploy(asked(made, 3), OLD)
    return made


def asked(prefix: Path, count: int, *, share: Share = Share.CBIN) -> Wanted:
    keys = prefix.parent / "keys.pub"
    keys.write_text(f"{KEY}\n")
    return Wanted(
        targets=numbered(count, port=20000),
        prefix=prefix,
        users=USERS,
        share=share,
        authorized_keys=keys,
    )


def own(path: Path, text: str) -> None:
    """What the user of an instance writes."""
    path.write_text(text)


def fresh(tmp_path: Path, *, share: Share = Share.CBIN) -> Path:
    """An instance deployed from the new image at once, to compare with."""
    made = tmp_path / "fresh"
    made.mkdir(mode=0o755)
    deploy.deploy(asked(made, 1, share=share), NEW)
    return made / "nifty1"


@pytest.mark.parametrize("share", list(Share))
def test_an_untouched_instance_becomes_the_new_image(tmp_path: Path, share: Share) -> None:
    prefix = tmp_path / "home"
    prefix.mkdir(mode=0o755)
    deploy.deploy(asked(prefix, 1, share=share), OLD)
    kept = {path: (prefix / "nifty1" / path).read_bytes() for path in (HOST_KEY, "etc/machine-id")}
    report = upgrade(prefix, None, NEW)
    expected = seen(fresh(tmp_path, share=share))
    for path, content in kept.items():
        expected[path] = (*expected[path][:-1], content)
    assert (report.kept, seen(prefix / "nifty1")) == ((), expected)


def test_the_state_says_both_images(prefix: Path) -> None:
    upgrade(prefix, ("2",), NEW)
    one, two = (records.read(Layout(prefix), suffix) for suffix in "12")
    assert one is not None
    assert two is not None
    assert (one.image, one.previous) == (OLD.digest, None)
    assert (two.image, two.previous) == (NEW.digest, OLD.digest)


def test_another_login_is_in_ssh_config_as_soon_as_in_the_state(prefix: Path) -> None:
    """A run that is killed after this batch leaves a list that is right."""
    layout = Layout(prefix)
    upgrading.upgrade(layout, ("2",), make_image(login="other"))
    (_, *hosts) = layout.ssh_config.read_text().split("Host nifty")[:4]
    assert [host.split("User ")[1].strip() for host in hosts] == ["luser", "other", "luser"]


def test_what_is_the_users_stays(prefix: Path) -> None:
    root = prefix / "nifty1"
    own(root / "etc/mine", "mine")
    own(root / "home/luser/notes", "notes")
    own(root / "etc/hosts", "127.0.0.1 nifty1 more\n")
    keys = (root / "home/luser/.ssh/authorized_keys").read_bytes()
    upgrade(prefix, ("1",), NEW)
    assert (root / "etc/mine").read_text() == "mine"
    assert (root / "home/luser/notes").read_text() == "notes"
    assert (root / "etc/hosts").read_text() == "127.0.0.1 nifty1 more\n"
    assert (root / "home/luser/.ssh/authorized_keys").read_bytes() == keys


def test_what_both_changed_stays_with_the_new_beside_it(prefix: Path) -> None:
    root = prefix / "nifty1"
    own(root / "etc/motd", "my own\n")
    report = upgrade(prefix, ("1",), NEW)
    assert report.kept == (Kept("nifty1", "etc/motd", beside=True),)
    assert (root / "etc/motd").read_text() == "my own\n"
    assert (root / "etc/motd.nifty-new").read_text() == "welcome again\n"


def test_the_users_lines_of_inittab_survive(prefix: Path) -> None:
    table = prefix / "nifty1/etc/inittab"
    own(table, f"{table.read_text()}::respawn:/sbin/crond -f\n")
    report = upgrade(prefix, ("1",), NEW)
    assert report.kept == ()
    assert table.read_text() == (
        "::respawn:/sbin/dropbear -F -w -p 20001\n::respawn:/sbin/syslogd -n -b 1\n"
        "::respawn:/sbin/crond -f\n"
    )


def test_a_file_that_the_new_image_lacks_goes(prefix: Path) -> None:
    upgrade(prefix, ("1",), NEW)
    assert not (prefix / "nifty1/opt").exists()


def test_a_changed_file_that_the_new_image_lacks_stays(prefix: Path) -> None:
    own(prefix / "nifty1/opt/gone", "mine")
    upgrade(prefix, ("1",), NEW)
    assert (prefix / "nifty1/opt/gone").read_text() == "mine"


def test_the_way_back_leads_to_where_it_was(prefix: Path) -> None:
    root = prefix / "nifty1"
    own(root / "etc/motd", "my own\n")
    own(root / "etc/inittab", f"{(root / 'etc/inittab').read_text()}# mine\n")
    before = seen(root)
    upgrade(prefix, ("1",), NEW)
    upgrade(prefix, ("1",), None)
    one = records.read(Layout(prefix), "1")
    assert one is not None
    assert (one.image, one.previous, seen(root)) == (OLD.digest, NEW.digest, before)


def test_upgrading_again_changes_nothing(prefix: Path) -> None:
    upgrade(prefix, None, NEW)
    before = seen(prefix / "nifty1")
    assert upgrade(prefix, None, NEW).moved == ()
    assert seen(prefix / "nifty1") == before


def test_images_that_nobody_uses_go(prefix: Path) -> None:
    upgrade(prefix, None, NEW)
    third = make_image([File(path="etc/motd", content=b"third\n")])
    upgrade(prefix, None, third)
    assert {path.name for path in (prefix / "cbin").iterdir()} == {NEW.digest, third.digest}


def test_what_others_keep_in_cbin_stays(prefix: Path) -> None:
    (prefix / "cbin/busybox-x86_64").write_text("somebody's")
    upgrade(prefix, None, NEW)
    assert (prefix / "cbin/busybox-x86_64").read_text() == "somebody's"


@pytest.mark.parametrize("trap", ["file", "parent", "beside", "part"])
def test_a_planted_link_leads_nowhere(prefix: Path, tmp_path: Path, trap: str) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "motd").write_text("the host's")
    etc = prefix / "nifty1/etc"
    match trap:
        case "file":
            (etc / "motd").unlink()
            (etc / "motd").symlink_to(host / "motd")
        case "parent":
            etc.rename(prefix / "nifty1/other")
            etc.symlink_to(host)
        case "beside":
            own(etc / "motd", "changed")
            (etc / "motd.nifty-new").symlink_to(host / "motd")
        case _:
            (etc / "motd.nifty-part").symlink_to(host / "motd")
    upgrade(prefix, ("1",), NEW)
    assert {path.name: path.read_text() for path in host.iterdir()} == {"motd": "the host's"}


def test_pipes_and_giants_do_not_stop_it(prefix: Path) -> None:
    etc = prefix / "nifty1/etc"
    (etc / "motd").unlink()
    os.mkfifo(etc / "motd")
    os.truncate(etc / "inittab", 1 << 40)
    report = upgrade(prefix, ("1",), NEW)
    assert [one.path for one in report.kept] == ["etc/inittab", "etc/motd"]


CHANGES = ("mkdir", "symlink", "rename", "unlink", "rmdir", "chown", "fchown", "fchmod")


def killed_at(step: int, prefix: Path) -> bool:
    """Upgrade in a process that ends just before change *step*; whether it came so far."""

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **names: object) -> None:
            nonlocal step
            if step == 0:
                os._exit(9)
            step -= 1
            change(*args, **names)

        return call

    child = os.fork()
    if child == 0:
        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        try:
            upgrade(prefix, None, NEW)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.timeout(300)  # upgrades once for each step there is
def test_an_upgrade_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    expected = seen(fresh(tmp_path))
    step, unfinished = 0, True
    while unfinished:
        prefix = tmp_path / f"home{step}"
        prefix.mkdir(mode=0o755)
        deploy.deploy(asked(prefix, 1), OLD)
        root = prefix / "nifty1"
        table = root / "etc/inittab"
        own(table, f"{table.read_text()}# mine\n")
        unfinished = killed_at(step, prefix)
        report = upgrade(prefix, None, NEW)
        assert (step, report.kept) == (step, ())
        assert seen(root).keys() == expected.keys()
        for path in ("srv", "var", "etc/added", "srv/link"):
            assert (step, seen(root)[path]) == (step, expected[path])
        assert (root / "etc/motd").read_bytes() == b"welcome again\n"
        assert (root / "etc/inittab").read_text().endswith("syslogd -n -b 1\n# mine\n")
        step += 1
    assert step > 20


ONE = replace(make_instance("1", image=OLD.digest), previous=NEW.digest)
TWO = make_instance("2", image=OLD.digest)
BOTH = (ONE, TWO)
ROOTS = frozenset(["nifty1", "nifty2", "nifty5"])


def test_the_plan_moves_those_that_are_elsewhere() -> None:
    assert plan_upgrade(BOTH, ROOTS, None, NEW.digest) == (Move("1", *EVERY), Move("2", *EVERY))


def test_the_plan_is_empty_for_those_that_are_there() -> None:
    assert plan_upgrade(BOTH, ROOTS, None, OLD.digest) == ()


def test_the_way_back_is_the_previous_image() -> None:
    assert plan_upgrade(BOTH, ROOTS, ["1"], None) == (Move("1", *EVERY),)


@pytest.mark.parametrize(
    ("suffixes", "told"),
    [
        (["2"], "nifty2: was never upgraded, so there is no way back"),
        (["5"], "nifty5: not deployed by this program"),
        (["9"], "nifty9: not deployed by this program"),
    ],
)
def test_what_cannot_go_back_is_told(suffixes: list[str], told: str) -> None:
    with pytest.raises(UpgradeError) as caught:
        plan_upgrade(BOTH, ROOTS, suffixes, None)
    assert caught.value.problems == (told,)


def test_a_removal_names_what_is_not_ours() -> None:
    with pytest.raises(UndeployError) as caught:
        plan_undeploy(Known(instances=BOTH), ROOTS, ["1", "5", "9"])
    assert caught.value.problems == (
        "nifty5: is there and was not made by this program: it stays untouched",
        "nifty9: not deployed",
    )


def test_a_removal_without_a_root_is_planned() -> None:
    assert plan_undeploy(Known(instances=BOTH), frozenset(), ["1"]) == (Remove("1", root=False),)


def test_removing_leaves_the_others(prefix: Path) -> None:
    undeploy(prefix, ["2"])
    names = {path.name for path in prefix.iterdir()}
    assert names == {".nifty", "cbin", "nifty1", "nifty3"}
    assert "20002" not in Layout(prefix).known_hosts.read_text()


def test_removing_all_leaves_nothing_of_them(prefix: Path) -> None:
    (prefix / "nifty9").mkdir()
    undeploy(prefix, None)
    assert {path.name for path in prefix.iterdir()} == {".nifty", "cbin", "nifty9"}
    assert list((prefix / "cbin").iterdir()) == []
    assert facts.gather(Layout(prefix), Known()).images == frozenset()


def test_a_removed_one_can_be_deployed_again(prefix: Path) -> None:
    undeploy(prefix, None)
    assert deploy.deploy(asked(prefix, 3), OLD).created == 3


def test_what_a_killed_removal_left_goes(prefix: Path) -> None:
    (prefix / "nifty1").rename(Layout(prefix).new / "nifty1")
    undeploy(prefix, ["1"])
    assert list(Layout(prefix).new.iterdir()) == []
    assert records.read(Layout(prefix), "1") is None
