"""What a host gives to the drop-ins of an image, worked out on made-up hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import deploy
from pipeline.errors import NiftyError
from pipeline.host.binds import dropins
from pipeline.host.binds.dropins import Bound
from pipeline.host.binds.rules import Bind
from pipeline.host.doctor import standing
from pipeline.host.doctor.rows import PlanError, Status
from pipeline.host.roots import images
from pipeline.host.roots.access import Access
from pipeline.host.state import records
from pipeline.host.state.layout import Layout
from pipeline.host.state.records import Share, Users
from pipeline.host.wanted import Wanted, numbered
from pipeline.image.manifest import DropinRecord, Manifest, ProgramRecord
from pipeline.image.rootfs import Directory, Entry, File, Symlink
from pipeline.libraries import closure, needs, requirements
from tests.support.host_image import key_file, make_image
from tests.support.tiny_libraries import Maker, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

TRIPLE = "x86_64-linux-gnu"
LD = "ld-linux-x86-64.so.2"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def rpm(tmp_path: Path, maker: Maker) -> Tree:
    made = Tree.rpm_style(tmp_path / "rpm", maker)
    made.put("/usr/lib64/liba.so.1", maker.library("liba.so.1", versions=("A_1",)))
    made.put("/usr/bin/p", maker.program("liba.so.1@A_1"))
    return made


@pytest.fixture
def debian(tmp_path: Path, maker: Maker) -> Tree:
    made = Tree(path=tmp_path / "debian")
    made.link("/lib", "usr/lib")
    made.link("/lib64", "usr/lib64")
    made.link(f"/usr/lib64/{LD}", f"/lib/{TRIPLE}/{LD}")
    made.put(
        f"/usr/lib/{TRIPLE}/{LD}",
        maker.loader(f"/lib/{TRIPLE}", f"/usr/lib/{TRIPLE}", "/lib", "/usr/lib"),
    )
    made.put(f"/usr/lib/{TRIPLE}/liba.so.1", maker.library("liba.so.1", versions=("A_1",)))
    made.put("/usr/bin/p", maker.program("liba.so.1@A_1"))
    return made


OWN: tuple[Entry, ...] = (Symlink(path="lib", target="usr/lib"), Directory(path="usr/share"))


def image_for(host: Tree, *data: str, changed: Iterable[Entry] = OWN) -> images.Image:
    """An image whose drop-in `p` was taken from *host*."""
    wanted = needs(closure(PurePosixPath("/usr/bin/p"), host.root()))
    program = ProgramRecord(path="cbin/dropin/p", needs=requirements.as_json(wanted))
    record = DropinRecord(target="p", libraries="bind", programs=(program,), data=data)
    return make_image(changed, dropins=(record,))


def given(host: Tree, image: images.Image) -> Bound:
    return dropins.bound(image.manifest, host.root())


def links(found: Bound) -> dict[str, str]:
    return {one.path: one.target for one in found.entries if isinstance(one, Symlink)}


def test_rpm_hosts_give_one_directory_and_one_link(rpm: Tree) -> None:
    found = given(rpm, image_for(rpm))
    assert found.binds == (Bind(source="/usr/lib64", target="/usr/lib64"),)
    assert (links(found), found.problems) == ({"lib64": "usr/lib64"}, ())


def test_debian_gives_the_multiarch_directory(debian: Tree) -> None:
    found = given(debian, image_for(debian))
    path = f"/usr/lib/{TRIPLE}"
    assert found.binds == (Bind(source=path, target=path),)
    assert links(found) == {"lib64": "usr/lib64", f"usr/lib64/{LD}": f"/lib/{TRIPLE}/{LD}"}


def test_image_of_one_host_runs_on_another(rpm: Tree, debian: Tree) -> None:
    assert given(rpm, image_for(debian)).problems == ()
    assert given(debian, image_for(rpm)).problems == ()


def test_mount_points_and_their_parents_are_made(debian: Tree) -> None:
    entries = {one.path for one in given(debian, image_for(debian)).entries}
    assert entries == {"lib64", "usr/lib64", f"usr/lib64/{LD}", f"usr/lib/{TRIPLE}"}


def test_image_without_drop_ins_gets_nothing(rpm: Tree) -> None:
    assert given(rpm, make_image()) == Bound()


def test_missing_version_is_told_with_library_and_directories(
    rpm: Tree, debian: Tree, maker: Maker
) -> None:
    rpm.put("/usr/lib64/liba.so.1", maker.library("liba.so.1", versions=("A_0",)))
    (problem,) = given(rpm, image_for(debian)).problems
    assert "needs A_1 of liba.so.1, but /lib64/liba.so.1 has A_0 at most; searched" in problem


def test_library_found_by_the_cache_alone_brings_the_cache(rpm: Tree, maker: Maker) -> None:
    rpm.put("/usr/lib64/own/liba.so.1", maker.library("liba.so.1", versions=("A_1",)))
    (rpm.path / "usr/lib64/liba.so.1").unlink()
    rpm.put("/etc/ld.so.conf", "/usr/lib64/own\n")
    rpm.put("/etc/ld.so.cache", "")
    found = given(rpm, image_for(rpm))
    assert Bind(source=dropins.CACHE, target=dropins.CACHE) in found.binds
    assert File(path="etc/ld.so.cache", content=b"") in found.entries


def test_data_are_bound_and_must_be_there(rpm: Tree) -> None:
    rpm.put("/usr/share/p/one", "1")
    found = given(rpm, image_for(rpm, "/usr/share/p", "/usr/share/absent"))
    assert Bind(source="/usr/share/p", target="/usr/share/p") in found.binds
    assert found.problems == ("p: /usr/share/absent: not on this host",)


def test_data_in_a_bound_directory_need_no_bind_of_their_own(rpm: Tree) -> None:
    rpm.put("/usr/lib64/p/one", "1")
    found = given(rpm, image_for(rpm, "/usr/lib64/p"))
    assert [bind.source for bind in found.binds] == ["/usr/lib64"]


def test_plugins_among_data_bring_their_libraries(rpm: Tree, maker: Maker) -> None:
    rpm.put("/usr/lib64/plug/libplug.so", maker.library("libplug.so"))
    plugin = maker.library("plugin.so", "libplug.so", runpath="/usr/lib/plug")
    rpm.put("/usr/share/p/plugin.so", plugin)
    rpm.put("/usr/lib/plug/libplug.so", maker.library("libplug.so"))
    found = given(rpm, image_for(rpm, "/usr/share/p"))
    assert "/usr/lib/plug" in [bind.source for bind in found.binds]


@pytest.mark.parametrize("path", ["/etc/shadow", "/root", "/usr/lib", "/usr/lib/systemd", "/opt/x"])
def test_what_no_image_may_ask_for(rpm: Tree, path: str) -> None:
    rpm.put(f"{path}/x", "secret")
    found = given(rpm, image_for(rpm, path))
    assert path not in [bind.source for bind in found.binds]
    assert found.problems == (
        f"bind of {path}: refused, an image may ask for libraries and /usr/share",
    )


@pytest.mark.parametrize("path", ["/", "/usr/share/../..", "/usr/lib64/.."])
def test_nothing_is_searched_that_may_not_be_bound(
    rpm: Tree, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    rpm.put("/usr/share/x", "1")
    monkeypatch.setattr(dropins, "_walk", lambda _top: pytest.fail("walked"))
    found = given(rpm, image_for(rpm, path))
    assert (len(found.problems), [bind.source for bind in found.binds]) == (1, ["/usr/lib64"])


def test_what_the_image_has_itself_is_not_covered(rpm: Tree) -> None:
    own = (*OWN, Directory(path="usr/lib64"), File(path="usr/lib64/own.so", content=b"x"))
    found = given(rpm, image_for(rpm, changed=own))
    assert found.problems == ("/usr/lib64: the image has /usr/lib64 itself",)


def test_library_below_usr_lib_is_bound_alone(rpm: Tree, maker: Maker) -> None:
    rpm.put("/usr/lib/libone.so", maker.library("libone.so"))
    rpm.put("/usr/bin/p", maker.program("libone.so", runpath="/usr/lib"))
    sources = [bind.source for bind in given(rpm, image_for(rpm)).binds]
    assert sources == ["/usr/lib/libone.so", "/usr/lib64"]


def test_damaged_needs_are_one_clear_error(rpm: Tree) -> None:
    program = ProgramRecord(path="p", needs={"program": "p"})
    record = DropinRecord(target="p", libraries="bind", programs=(program,))
    with pytest.raises(NiftyError, match="no record of what a program needs"):
        given(rpm, make_image(dropins=(record,)))


def test_roots_of_instances_have_what_the_host_gives(debian: Tree) -> None:
    image = image_for(debian)
    known = replace(image, bound=given(debian, image))
    granted = Access(lines=())
    paths = {entry.path for entry in images.entries_of(known, Share.CBIN, granted)}
    assert {"lib64", f"usr/lib/{TRIPLE}"} <= paths


def test_nothing_is_written_where_drop_ins_would_not_run(tmp_path: Path, debian: Tree) -> None:
    image = image_for(debian)
    lacking = replace(image, bound=Bound(problems=("p: needs liba.so.1, which is not there",)))
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    wanted = Wanted(
        targets=numbered(1, port=20000), prefix=prefix, authorized_keys=key_file(tmp_path)
    )
    with pytest.raises(PlanError, match=r"needs liba\.so\.1"):
        deploy.deploy(wanted, lacking)
    assert list(prefix.glob("nifty*")) == []


def test_doctor_tells_whose_drop_ins_no_longer_start(
    tmp_path: Path, rpm: Tree, maker: Maker
) -> None:
    image = image_for(rpm)
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    wanted = Wanted(
        targets=numbered(2, port=20000),
        prefix=prefix,
        authorized_keys=key_file(tmp_path),
        users=Users.HOST,
    )
    deploy.deploy(wanted, image)
    layout = Layout(prefix)
    (before,) = standing.dropin_rows(layout, records.read_all(layout), rpm.root())
    rpm.put("/usr/lib64/liba.so.1", maker.library("liba.so.1", versions=("A_0",)))
    (after,) = standing.dropin_rows(layout, records.read_all(layout), rpm.root())
    assert (before.status, before.todo) == (Status.OK, "")
    assert (after.status, after.why) == (
        Status.FAIL,
        "programs of the host do not start in nifty1, nifty2",
    )
    assert "needs A_1 of liba.so.1" in after.todo


def manifest_of(host: Tree) -> Manifest:
    return image_for(host).manifest


@pytest.mark.parametrize("name", ["p", "script"])
def test_would_give_tells_of_a_file_that_is_no_drop_in_yet(rpm: Tree, name: str) -> None:
    rpm.put("/usr/bin/script", "#!/usr/bin/p\n")
    found = closure(PurePosixPath(f"/usr/bin/{name}"), rpm.root())
    told = dropins.would_give(make_image(OWN).manifest, name, found, rpm.root())
    assert [bind.source for bind in told.binds] == ["/usr/lib64"]


def test_would_give_refuses_a_script_without_interpreter(rpm: Tree) -> None:
    rpm.put("/usr/bin/script", "#!/usr/bin/absent\n")
    found = closure(PurePosixPath("/usr/bin/script"), rpm.root())
    (problem,) = dropins.would_give(make_image(OWN).manifest, "x", found, rpm.root()).problems
    assert "needs the interpreter /usr/bin/absent" in problem
