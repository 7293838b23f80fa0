"""What doctor says of a damaged fleet, and what fix=yes and the next start make of it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import deploy
from pipeline.host.doctor import heal
from pipeline.host.doctor.rows import Status
from pipeline.host.roots import images, undeploy, upgrade
from pipeline.host.state import records
from pipeline.host.state.layout import Layout
from pipeline.host.state.records import Users
from pipeline.host.units import sync, unit_files
from pipeline.host.units.unit_files import MARK, UnitFile
from pipeline.host.wanted import Wanted, numbered
from tests.support.host_image import HOST_KEY, key_file, make_image
from tests.support.host_tree import seen
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = make_image()
USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three instances, and what their units read."""
    made = Layout(tmp_path / "home")
    made.prefix.mkdir(mode=0o755)
    wanted = Wanted(
        targets=numbered(3, port=20000),
        prefix=made.prefix,
        users=USERS,
        authorized_keys=key_file(tmp_path),
    )
    deploy.deploy(wanted, IMAGE)
    sync.write_environments(made, records.look(made))
    return made


def told(layout: Layout) -> dict[str, str]:
    return {
        row.name: row.todo
        for row in heal.rows(layout, records.look(layout))
        if row.status is Status.FAIL
    }


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def test_what_is_whole_has_no_row_and_nothing_is_mended(layout: Layout) -> None:
    before = seen(layout.prefix)
    assert told(layout) == {}
    assert heal.heal(layout) == ()
    assert heal.heal_if_needed(layout, records.read_all(layout), IMAGE) == ()
    assert seen(layout.prefix) == before


def test_a_prefix_without_state_is_whole(tmp_path: Path) -> None:
    assert list(heal.rows(Layout(tmp_path), records.Known())) == []
    assert heal.heal(Layout(tmp_path)) == ()
    assert list(tmp_path.iterdir()) == []


def test_state_is_made_anew_and_what_is_given_up_is_named(layout: Layout) -> None:
    known = records.read_all(layout)
    emptied(layout.instances / "2.json")
    assert told(layout) == {
        "state of instances": f"{layout.instances}/2.json: empty, as after a power failure; "
        "doit undeploy names=… gives up those that fix=yes cannot mend"
    }
    assert heal.heal(layout) == ("nifty2: state made anew from the root; the way back is given up",)
    assert records.look(layout) == records.Known(instances=known)
    assert told(layout) == {}


def test_state_without_a_root_is_given_up(layout: Layout) -> None:
    shutil.rmtree(layout.prefix / "nifty2")
    emptied(layout.instances / "2.json")
    (layout.instances / "x y.json").mkdir()
    lines = heal.heal(layout)
    assert lines[:2] == (
        f"given up: {layout.instances}/2.json: empty, as after a power failure; it had no root",
        f"given up: {layout.instances}: 'x y.json': not the name of an instance; it had no root",
    )
    assert records.look(layout).damaged == ()
    assert told(layout) == {}


def test_a_newer_version_s_state_is_left(layout: Layout) -> None:
    path = layout.instances / "2.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    before = path.read_bytes()
    (line, *_) = heal.heal(layout)
    assert line.startswith(f"left as it is: {path}: state of format 2")
    assert path.read_bytes() == before
    assert not next(heal.rows(layout, records.look(layout))).fixable


def test_what_cannot_be_found_out_is_told_with_the_way_out(layout: Layout) -> None:
    one, _two, _three = records.read_all(layout)
    records.write(layout, make_instance("9", port=2202, image=one.image))
    (layout.prefix / "nifty2/etc/inittab").write_text("::respawn:/sbin/dropbear -F -w -p 20001\n")
    layout.ssh_config.unlink()
    emptied(layout.instances / "2.json")
    lines = heal.heal(layout)
    assert "nifty2: its port is not known any more" in lines
    assert "doit undeploy names=2 gives up what cannot be mended" in lines
    undeploy.undeploy(layout.prefix, ["2"])
    assert records.look(layout).damaged == ()


def test_a_root_that_no_instance_can_have_is_never_touched(layout: Layout) -> None:
    (layout.prefix / "nifty007").mkdir()
    (layout.instances / "007.json").touch()
    (line,) = heal.heal(layout)
    assert line.startswith("given up: ")
    (layout.instances / "007.json").touch()
    undeploy.undeploy(layout.prefix, ["007"])
    assert not (layout.instances / "007.json").exists()
    assert (layout.prefix / "nifty007").is_dir()


@pytest.mark.parametrize("part", ["cbin/{}/busybox", ".nifty/images/{}.json"])
def test_an_image_is_mended_from_its_archive(layout: Layout, part: str) -> None:
    path = layout.prefix / part.format(IMAGE.digest)
    content = path.read_bytes()
    emptied(path)
    assert [*told(layout)] == [f"image {IMAGE.digest[:12]}"]
    (line,) = heal.heal_if_needed(layout, records.read_all(layout))
    assert line.startswith("mended from its archive: ")
    assert path.read_bytes() == content
    assert told(layout) == {}


def test_a_lost_archive_is_told_and_brought_back_by_the_image(layout: Layout) -> None:
    emptied(layout.images / f"{IMAGE.digest}.image")
    lines = heal.heal(layout)
    assert lines[0].startswith(f"cannot be mended: the image {IMAGE.digest[:12]} on this host is")
    assert lines[-1].endswith("with image= and the same archive brings it back")
    assert heal.heal_if_needed(layout, records.read_all(layout), IMAGE) == (
        f"image {IMAGE.digest[:12]} is whole again",
    )
    assert images.is_stored(layout, IMAGE)


def test_files_of_a_root_are_put_back(layout: Layout) -> None:
    before = seen(layout.prefix / "nifty2")
    emptied(layout.prefix / "nifty2/etc/inittab")
    assert told(layout) == {"files of instances": "nifty2: /etc/inittab"}
    lines = heal.heal_if_needed(layout, records.read_all(layout))
    assert lines == ("nifty2: /etc/inittab had lost their contents, and have them again",)
    assert seen(layout.prefix / "nifty2") == before


def test_a_lost_host_key_is_named_and_known_hosts_follows(layout: Layout) -> None:
    emptied(layout.prefix / "nifty2" / HOST_KEY)
    lines = heal.heal(layout)
    assert lines[0] == "nifty2: the host key was lost: it has a new one, which known_hosts says"
    one = records.read(layout, "2")
    assert one is not None
    assert one.host_key in layout.known_hosts.read_text()
    assert told(layout) == {}


@pytest.mark.parametrize("name", ["known_hosts", "ssh_config", "units/2.env"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"\x80"), id="no UTF-8"),
        pytest.param(lambda path: path.touch(), id="empty"),
        pytest.param(lambda path: (path / "a").mkdir(parents=True), id="directory"),
        pytest.param(os.mkfifo, id="pipe"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="link"),
    ],
)
def test_what_is_made_from_the_state_is_told_and_made_anew(
    layout: Layout, name: str, damage: Callable[[Path], object]
) -> None:
    path = layout.state / name
    content = path.read_bytes()
    path.unlink()
    damage(path)
    assert told(layout) == {"made from the state": str(path)}
    heal.heal(layout)
    sync.write_environments(layout, records.look(layout))
    assert path.read_bytes() == content
    assert not path.is_symlink()
    assert told(layout) == {}


@pytest.mark.parametrize("content", [b"", bytes(300)])
def test_a_unit_that_lost_its_content_is_written_again(tmp_path: Path, content: bytes) -> None:
    file = UnitFile(name="nifty@.service", text=f"{MARK}/home\n[Service]\n")
    (tmp_path / file.name).write_bytes(content)
    assert unit_files.changes([file], tmp_path) == (file,)
    assert unit_files.owned([file.name], tmp_path, tmp_path) == (file.name,)


def test_images_that_stand_in_the_way_of_an_upgrade_are_known_before(layout: Layout) -> None:
    other = make_image(version="2")
    moves = upgrade.preview_upgrade(layout, records.read_all(layout), other)
    assert upgrade.lost_images(layout, moves, other) == {}
    emptied(layout.images / f"{IMAGE.digest}.image")
    ((digest, why),) = upgrade.lost_images(layout, moves, other).items()
    assert digest == IMAGE.digest
    assert why.startswith(f"the image {IMAGE.digest[:12]} on this host is lost: ")
