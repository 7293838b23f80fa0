"""Images that ask for more of a host than they may have: refused, and nobody else suffers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import deploy
from pipeline.host.doctor import standing
from pipeline.host.doctor.rows import PlanError, Status
from pipeline.host.roots import images
from pipeline.host.roots.upgrade import UpgradeError
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, environment_file
from pipeline.host.state.records import Users
from pipeline.host.units import sync
from pipeline.host.wanted import Wanted, named, numbered
from pipeline.image.manifest import BindRecord
from tests.support import as_typed
from tests.support.host_image import key_file, make_image

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.host.roots.images import Image

USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST
WHY = "bind of /root: refused, an image may ask for libraries and /usr/share"


def image_with(*sources: str, version: str = "1") -> Image:
    binds = tuple(BindRecord(source=source, target="mnt") for source in sources)
    made = make_image(version=version, binds=binds)
    return images.unpacked(made.archive, name="small.tar")


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    return Wanted(
        targets=numbered(1, port=20000),
        prefix=prefix,
        users=USERS,
        authorized_keys=key_file(tmp_path),
    )


def test_nothing_is_written_for_an_image_that_asks_for_too_much(wanted: Wanted) -> None:
    with pytest.raises(PlanError) as caught:
        deploy.deploy(wanted, image_with("/root"))
    assert caught.value.problems == (WHY,)
    assert list(wanted.prefix.glob("nifty*")) == list(wanted.prefix.glob("cbin/*")) == []


def test_libraries_and_data_may_be_asked_for(wanted: Wanted) -> None:
    assert deploy.deploy(wanted, image_with("/usr/share/zoneinfo")).created == 1


def test_nobody_is_upgraded_to_it(wanted: Wanted) -> None:
    deploy.deploy(wanted, image_with())
    with pytest.raises(UpgradeError) as caught:
        as_typed.upgrade(wanted.prefix, None, image_with("/root", version="2"))
    assert caught.value.problems == (WHY,)


@pytest.fixture
def beside(wanted: Wanted) -> Layout:
    """nifty1, and niftyfz as an earlier version of this program deployed it."""
    layout = Layout(wanted.prefix)
    deploy.deploy(wanted, image_with())
    bad, good = image_with("/root", version="2"), image_with(version="2")
    other = Wanted(
        targets=named(["fz"], port=20007),
        prefix=wanted.prefix,
        users=USERS,
        authorized_keys=wanted.authorized_keys,
    )
    deploy.deploy(other, good)
    path = layout.images / f"{good.digest}.json"
    path.write_text(bad.manifest.model_dump_json())
    return layout


def test_others_go_on(beside: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    sync.write_environments(beside, records.look(beside))
    there = [environment_file(beside.prefix, suffix).exists() for suffix in ("1", "fz")]
    assert there == [True, False]
    assert capsys.readouterr().err == (
        f"niftyfz cannot be started: {WHY}; doit upgrade names=fz image=… gives it another image, "
        "doit undeploy names=fz ends it\n"
    )


def test_doctor_names_who_has_it(beside: Layout) -> None:
    (row,) = standing.dropin_rows(beside, records.read_all(beside))
    why = "it asks for more than an image may have: niftyfz cannot be started"
    assert (row.status, row.why) == (Status.FAIL, why)
    assert WHY in row.todo
