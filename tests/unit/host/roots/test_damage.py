"""What a power failure or a strange file leaves: the others go on, and a rerun mends."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import deploy
from pipeline.host.doctor import facts
from pipeline.host.roots import identity, images, mend
from pipeline.host.roots.rebuild import rebuild
from pipeline.host.roots.undeploy import undeploy
from pipeline.host.state import clients, kept, records
from pipeline.host.state.layout import Layout, prepare
from pipeline.host.state.records import DamagedError, Share, StateError, Users
from pipeline.host.units import sync
from pipeline.host.wanted import Wanted, numbered
from tests.support.as_typed import planned
from tests.support.host_image import HOST_KEY, KEY, make_image
from tests.support.host_tree import seen
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = make_image()
USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def changed(**values: object) -> Callable[[Path], object]:
    """Writes the state of nifty2 with other *values*."""

    def write(path: Path) -> None:
        table = json.loads(records.encode(make_instance("2", number=2, port=2202)))
        path.write_text(json.dumps(table | values))

    return write


KEY_LINE = make_instance("2").host_key
DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "zeros": lambda path: path.write_bytes(bytes(400)),
    "cut": lambda path: path.write_bytes(records.encode(make_instance("2"))[:100]),
    "no object": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 60000),
    "deep object": lambda path: path.write_text('{"a":' * 10000),
    "many digits": lambda path: path.write_text('{"format": ' + "1" * 5000 + "}"),
    "pipe": os.mkfifo,
    "directory": Path.mkdir,
    "full directory": lambda path: (path / "a/b").mkdir(parents=True),
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "sparse": sparse,
    "no UTF-8": lambda path: path.write_bytes(b'{"format": "\x80"}'),
    "old format": changed(format=0),
    "true format": changed(format=True),
    "text port": changed(port="2202"),
    "port 0": changed(port=0),
    "port 65536": changed(port=65536),
    "negative": changed(number=-1),
    "huge base": changed(base=1 << 32),
    "host's base": changed(base=0),
    "login of two lines": changed(login="luser\n  ProxyCommand touch /tmp/x"),
    "login with a blank": changed(login="a b"),
    "red image": changed(image="\x1b[31mX"),
    "image elsewhere": changed(image="../../etc"),
    "image of two lines": changed(image="0" * 64 + "\n"),
    "previous": changed(previous="x"),
    "key of two lines": changed(host_key=KEY_LINE + "\n@cert-authority * " + KEY_LINE),
    "short key": changed(host_key="ssh-ed25519 AAAA"),
    "machine-id": changed(machine_id="\r\x1b]0;x\x07"),
    "share": changed(share=["cbin"]),
    "runner": changed(runner="\x1b[2J"),
    "unknown key": changed(**{"\x1b[31m" * 100: 1}),
    "another's": changed(suffix="3"),
    "suffix": changed(suffix="../2"),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    tmp_path.chmod(0o755)
    prepare(made)
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_bad_file_is_named_and_the_others_are_read(layout: Layout, damage: str) -> None:
    for suffix in ("1", "3"):
        records.write(layout, make_instance(suffix))
    path = layout.instances / "2.json"
    DAMAGES[damage](path)
    known = records.look(layout)
    assert [one.suffix for one in known.instances] == ["1", "3"]
    (bad,) = known.damaged
    assert (bad.suffix, bad.path) == ("2", path)
    assert bad.why.startswith(f"{path}: ")
    assert bad.why.isprintable()
    assert len(bad.why) < 250 + len(str(path))
    with pytest.raises(StateError):
        records.read(layout, "2")
    records.remove(layout, "2")
    assert records.look(layout).damaged == ()


@pytest.mark.parametrize("name", ["x y.json", "\n.json", "..json", "007.json", "\x1b[31m.json"])
def test_a_file_of_no_instance_is_named_printably(layout: Layout, name: str) -> None:
    (layout.instances / name).write_text("{}")
    (bad,) = records.look(layout).damaged
    assert bad.why.endswith("not the name of an instance")
    assert bad.why.isprintable()


def test_a_newer_version_s_state_is_not_ours_to_mend(layout: Layout) -> None:
    changed(format=2)(layout.instances / "2.json")
    (bad,) = records.look(layout).damaged
    assert not bad.is_ours


def test_all_bad_ones_are_told_together(layout: Layout) -> None:
    for number in range(1, 31):
        (layout.instances / f"{number}.json").touch()
    with pytest.raises(DamagedError) as caught:
        records.refuse(records.look(layout).damaged)
    assert caught.value.message.startswith("30 instances have state that cannot be used")
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "and 10 more"
    records.refuse(())
    with pytest.raises(DamagedError, match=r"^1 instance has state that cannot be used"):
        records.refuse(records.look(layout).damaged[:1])


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o755)
    deploy.deploy(asked(made), IMAGE)
    return made


def asked(prefix: Path, count: int = 3, share: Share = Share.CBIN) -> Wanted:
    keys = prefix.parent / "keys.pub"
    keys.write_text(f"{KEY}\n")
    targets = numbered(count, port=20000)
    return Wanted(targets=targets, prefix=prefix, share=share, users=USERS, authorized_keys=keys)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", DAMAGES)
def test_deploying_again_makes_state_anew(prefix: Path, damage: str) -> None:
    layout = Layout(prefix)
    before = records.read_all(layout)
    path = layout.instances / "2.json"
    path.unlink()
    DAMAGES[damage](path)
    report = deploy.deploy(asked(prefix), IMAGE)
    assert report.created == 0
    assert report.notes == ("nifty2: state made anew from the root; the way back is given up",)
    assert records.look(layout) == records.Known(instances=before)
    assert clients.are_current(layout, before)


def test_a_damaged_state_without_a_root_is_an_unfinished_deploy(prefix: Path) -> None:
    shutil.rmtree(prefix / "nifty2")
    emptied(Layout(prefix).instances / "2.json")
    assert deploy.deploy(asked(prefix), IMAGE).created == 1
    assert len(records.read_all(Layout(prefix))) == 3


def test_what_the_plan_would_mend_is_told(prefix: Path) -> None:
    emptied(Layout(prefix).instances / "2.json")
    emptied(prefix / "nifty3/etc/inittab")
    emptied(prefix / "nifty3/etc/hosts")
    lines = planned(asked(prefix), IMAGE).lines()
    assert "make the state of nifty2 anew from its root: its file is damaged" in lines
    assert "mend nifty3: /etc/hosts, /etc/inittab lost their contents" in lines


@pytest.mark.parametrize(
    "path",
    [
        *("etc/hostname", "etc/hosts", "etc/inittab", "etc/machine-id"),
        "home/luser/.ssh/authorized_keys",
    ],
)
@pytest.mark.parametrize("content", [b"", bytes(100)])
def test_a_file_that_lost_its_content_has_it_again(prefix: Path, path: str, content: bytes) -> None:
    before = seen(prefix / "nifty2")
    (prefix / "nifty2" / path).write_bytes(content)
    report = deploy.deploy(asked(prefix), IMAGE)
    assert report.notes == (f"nifty2: /{path} had lost their contents, and have them again",)
    assert seen(prefix / "nifty2") == before
    assert deploy.deploy(asked(prefix), IMAGE).notes == ()


def test_other_empty_files_are_the_user_s_until_one_of_ours_is_lost(prefix: Path) -> None:
    before = seen(prefix / "nifty2")
    emptied(prefix / "nifty2/etc/motd")
    assert deploy.deploy(asked(prefix), IMAGE).notes == ()
    emptied(prefix / "nifty2/etc/hosts")
    deploy.deploy(asked(prefix), IMAGE)
    assert seen(prefix / "nifty2") == before


@pytest.mark.parametrize("how", ["empty", "zeros", "cut", "gone"])
def test_a_lost_host_key_is_made_anew_recorded_and_named(prefix: Path, how: str) -> None:
    layout = Layout(prefix)
    path = prefix / "nifty2" / HOST_KEY
    old = path.read_bytes()
    path.write_bytes({"empty": b"", "zeros": bytes(83), "cut": old[:40], "gone": b""}[how])
    if how == "gone":
        path.unlink()
    report = deploy.deploy(asked(prefix), IMAGE)
    assert "nifty2: the host key was lost: it has a new one, which known_hosts says" in report.notes
    one = records.read(layout, "2")
    assert one is not None
    assert path.read_bytes() != old
    assert identity.public_of(path.read_bytes()) == one.host_key
    assert one.host_key in layout.known_hosts.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_in_the_way_of_a_host_key_is_told_and_the_state_stays(prefix: Path) -> None:
    before = records.read_all(Layout(prefix))
    path = prefix / "nifty2" / HOST_KEY
    path.unlink()
    (path / "mine").mkdir(parents=True)
    report = deploy.deploy(asked(prefix), IMAGE)
    assert report.notes == (f"nifty2: the host key cannot be made anew: /{HOST_KEY} is in its way",)
    assert records.read_all(Layout(prefix)) == before
    assert (path / "mine").is_dir()


def test_all_is_lost_but_the_names(prefix: Path) -> None:
    # as ext4 leaves it after a power failure within 30 s of a deploy of an earlier version
    layout = Layout(prefix)
    before = {name: seen(prefix / name) for name in ("nifty1", "nifty2", "nifty3")}
    for folder, _folders, names in os.walk(prefix):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                emptied(path)
    report = deploy.deploy(asked(prefix), IMAGE)
    assert report.created == 0
    assert len(records.look(layout).instances) == 3
    for name, was in before.items():
        now = seen(prefix / name)
        assert now.keys() == was.keys()
        differ = {path for path in was if now[path] != was[path]}
        assert differ == {HOST_KEY, "etc/machine-id"}
    assert images.damage(layout, IMAGE.digest) == ()
    assert deploy.deploy(asked(prefix), IMAGE).notes == ()


@pytest.mark.parametrize(
    "what", ["cbin/{}/busybox", ".nifty/images/{}.json", ".nifty/images/{}.image"]
)
@pytest.mark.parametrize("how", ["empty", "wrong", "gone", "directory", "sparse", "pipe"])
def test_a_damaged_image_is_mended(prefix: Path, what: str, how: str) -> None:
    layout = Layout(prefix)
    path = prefix / what.format(IMAGE.digest)
    content = path.read_bytes()
    path.unlink()
    match how:
        case "empty":
            path.touch()
        case "wrong":
            path.write_bytes(content[:-1] + b"?")
        case "directory":
            (path / "within").mkdir(parents=True)
        case "sparse":
            sparse(path)
        case "pipe":
            os.mkfifo(path)
    assert not images.is_stored(layout, IMAGE)
    assert images.damage(layout, IMAGE.digest) != ()
    deploy.deploy(asked(prefix), IMAGE)
    assert path.read_bytes() == content
    assert images.is_stored(layout, IMAGE)
    assert images.damage(layout, IMAGE.digest) == ()


def test_a_manifest_is_read_from_the_archive_beside_it(prefix: Path) -> None:
    layout = Layout(prefix)
    emptied(layout.images / f"{IMAGE.digest}.json")
    assert kept.described(layout, IMAGE.digest) == IMAGE.manifest


@pytest.mark.parametrize("how", [sparse, Path.mkdir, os.mkfifo])
def test_lists_are_replaced_whatever_they_are(prefix: Path, how: Callable[[Path], object]) -> None:
    layout = Layout(prefix)
    for path in (layout.known_hosts, layout.ssh_config):
        path.unlink()
        how(path)
    deploy.deploy(asked(prefix), IMAGE)
    assert clients.are_current(layout, records.read_all(layout))


@pytest.mark.parametrize("damage", ["no UTF-8", "directory", "full directory", "sparse", "pipe"])
def test_environments_are_replaced_whatever_they_are(prefix: Path, damage: str) -> None:
    layout = Layout(prefix)
    known = records.look(layout)
    sync.write_environments(layout, known)
    path = layout.state / "units/2.env"
    content = path.read_bytes()
    path.unlink()
    DAMAGES[damage](path)
    sync.write_environments(layout, known)
    assert path.read_bytes() == content


def test_what_a_damaged_one_runs_by_stays(prefix: Path) -> None:
    layout = Layout(prefix)
    sync.write_environments(layout, records.look(layout))
    emptied(layout.instances / "2.json")
    sync.write_environments(layout, records.look(layout))
    assert sorted(path.name for path in (layout.state / "units").iterdir()) == [
        *("1.env", "2.env", "3.env")
    ]


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_with_damaged_state_is_removed(prefix: Path, damage: str) -> None:
    layout = Layout(prefix)
    path = layout.instances / "2.json"
    path.unlink()
    DAMAGES[damage](path)
    undeploy(prefix, ["2"])
    assert sorted(path.name for path in prefix.glob("nifty*")) == ["nifty1", "nifty3"]
    assert records.look(layout).damaged == ()
    assert [one.suffix for one in records.read_all(layout)] == ["1", "3"]


def test_while_state_is_damaged_no_image_goes(prefix: Path) -> None:
    emptied(Layout(prefix).instances / "2.json")
    undeploy(prefix, ["1", "3"])
    assert facts.gather(Layout(prefix), records.look(Layout(prefix))).images == {IMAGE.digest}
    undeploy(prefix, None)
    assert facts.gather(Layout(prefix), records.look(Layout(prefix))).images == frozenset()


def _never(_suffix: str) -> bool:
    return False


def test_a_rebuilt_state_takes_nothing_of_another(prefix: Path) -> None:
    layout = Layout(prefix)
    one, two, three = records.read_all(layout)
    (prefix / "nifty2/etc/inittab").write_text("::respawn:/sbin/dropbear -F -w -p 20001\n")
    layout.ssh_config.unlink()
    assert rebuild(layout, "2", (one, three), boots=_never) == replace(two, port=2202)
    with pytest.raises(StateError, match="nifty2: its port is not known"):
        rebuild(layout, "2", (one, replace(three, port=2202)), boots=_never)


def test_a_root_that_is_gone_has_no_state_to_rebuild(prefix: Path) -> None:
    made, told = mend.rebuild_states(Layout(prefix), {"9": None}, (), _never)
    assert made == ()
    assert told == ("nifty9: nifty9: No such file or directory",)
