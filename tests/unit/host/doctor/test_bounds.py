"""Bounds on the disks of instances: what is asked for, planned, checked and told."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.commands import status
from pipeline.host.doctor import bounds, rows, site
from pipeline.host.doctor.facts import Facts
from pipeline.host.doctor.plan import plan
from pipeline.host.doctor.rows import Claim, PlanError, Stage, Status
from pipeline.host.doctor.site import PrefixFacts, Site
from pipeline.host.roots import quota
from pipeline.host.roots.actions import Create, Plan, Rebound
from pipeline.host.roots.needs import Needs
from pipeline.host.roots.quota import Ability, Means
from pipeline.host.state import records
from pipeline.host.state.records import Users
from pipeline.host.status import Row
from pipeline.host.units import systemd
from pipeline.host.wanted import Wanted, numbered
from tests.support.instances import make_instance

M64, M128 = 64 << 20, 128 << 20


def below(ability: Ability) -> PrefixFacts:
    return PrefixFacts(
        path=Path("/home"), exists=True, free_bytes=1 << 30, free_inodes=100_000, quota=ability
    )


def host(ability: Ability) -> Facts:
    return Facts(site=Site(prefix=below(ability), listening={}, ephemeral=(60000, 60999)))


ABLE = host(Ability(means=Means.PROJECT))
UNABLE = host(Ability(means=None, lacking="no quota", todo="mend it"))
NEEDS = Needs(digest="a" * 64, files=(10, 5000), directories=3, links=2, once=1 << 20)


def planned(facts: Facts, count: int = 1, disk: int | None = M64) -> Plan:
    return plan(Wanted(targets=numbered(count), disk=disk), facts, NEEDS)


def there(disk: int, base: Facts = ABLE) -> Facts:
    one = replace(make_instance("1", image=NEEDS.digest), disk=disk)
    images = frozenset([NEEDS.digest])
    return replace(base, instances=(one,), roots=frozenset(["nifty1"]), images=images)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", M64), ("1G", 1 << 30), ("1024K", 1 << 20), ("1024T", 1 << 50), ("1000M", 1000 << 20)],
)
def test_sizes_have_a_unit(text: str, size: int) -> None:
    assert settings.parse({"disk": text}, images=("nifty",)).disk == size


@pytest.mark.parametrize(
    "text", ["64", "64m", "64MB", "0M", "1.5G", "-1G", " 1G", "1023K", "1025T", "", "M", "٦٤M"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(settings.VariablesError) as caught:
        settings.parse({"disk": text}, images=("nifty",))
    assert caught.value.problems == (
        f"disk={text}: expected a size such as 64M or 1G, from 1M to 1024T, or none",
    )


@given(st.integers(1, 9_999), st.sampled_from("MGT"))
def test_sizes_are_told_as_they_are_typed(number: int, unit: str) -> None:
    size = number << {"M": 20, "G": 30, "T": 40}[unit]
    if size <= 1 << 50:
        assert settings.parse({"disk": quota.told(size)}, images=("nifty",)).disk == size


def test_none_is_a_size() -> None:
    assert settings.parse({"disk": "none"}, images=("nifty",)).disk == 0


def test_new_instances_are_bounded() -> None:
    assert planned(ABLE).creations == (Create("1", 1, 2201, disk=M64),)


def test_projects_are_numbers_of_the_range_that_this_host_does_not_name(tmp_path: Path) -> None:
    first = records.base_of(1, Users.PRIVATE)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/projid").write_text(f"# mine\nweb:{first}\nmail : {first + 2}\n")
    (tmp_path / "etc/projects").write_text(f"{first + 1}:/srv\n42:/opt\nodd\n")
    named = site.read(tmp_path, prefix=tmp_path).projects
    assert named == {first, first + 1, first + 2, 42}
    found = quota.projects(1, named)
    assert [next(found), next(found)] == [first + 3, first + 4]
    assert len(list(found)) == records.RANGE - 5


@pytest.mark.parametrize("disk", [None, 0])
def test_without_disk_nothing_is_bounded(disk: int | None) -> None:
    assert planned(UNABLE, disk=disk).creations == (Create("1", 1, 2201),)


def test_dry_run_tells_the_bound() -> None:
    assert "create nifty1, port 2201, at most 64M of disk" in planned(ABLE).lines()


def test_another_bound_is_planned_where_there_is_one() -> None:
    actions = planned(there(M128)).actions
    assert actions == (Rebound("1", M128, M64),)
    assert str(actions[0]) == "bound nifty1 by 64M of disk, not 128M"


def test_a_bound_is_lifted() -> None:
    (action,) = planned(there(M128), disk=0).actions
    assert str(action) == "lift the bound of nifty1, 128M of disk"


@pytest.mark.parametrize("disk", [None, M128])
def test_the_same_bound_is_nothing_to_do(disk: int | None) -> None:
    assert planned(there(M128), disk=disk).actions == ()


def test_an_instance_without_a_bound_cannot_get_one() -> None:
    found = planned(there(0))
    assert found.actions == ()
    assert found.warnings == ("nifty1 stay without disk=; undeploy them to change it",)


def test_an_unfinished_instance_keeps_its_bound() -> None:
    facts = replace(there(M128), roots=frozenset())
    (action,) = planned(facts, disk=None).creations
    assert (action.disk, action.finish) == (M128, True)
    assert planned(facts, disk=M64).creations[0].disk == M64
    assert planned(facts, disk=0).creations[0].disk == 0


@pytest.mark.parametrize("facts", [UNABLE, there(M128, UNABLE)])
def test_a_file_system_without_quota_is_refused_before_anything(facts: Facts) -> None:
    with pytest.raises(PlanError) as caught:
        planned(facts)
    assert caught.value.problems == ("disk=: no quota below /home: mend it; or disk=none",)


def test_a_bound_below_what_an_instance_takes_is_refused() -> None:
    needs = replace(NEEDS, files=(2 << 20,))
    with pytest.raises(PlanError) as caught:
        plan(Wanted(targets=numbered(1), disk=1 << 20), ABLE, needs)
    assert caught.value.problems == (
        "disk=1M: an instance of this image takes 2.0 MiB before anything is written in it",
    )


def test_a_bound_that_root_inside_could_lift_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        plan(Wanted(targets=numbered(1), users=Users.HOST, disk=M64), ABLE, NEEDS)
    assert caught.value.problems == (
        "disk= with users=host: root inside could lift the bound; leave out one of them",
    )


def test_who_deploys_is_told_how_far_a_bound_holds() -> None:
    (warning,) = planned(host(Ability(means=Means.QGROUP))).warnings
    assert warning.startswith("disk= on btrfs holds back no hostile root")
    (warning,) = planned(there(M128, UNABLE), disk=None).warnings
    assert warning == "nifty1 can outgrow disk=, no quota: mend it"


def test_state_of_before_has_no_bound() -> None:
    one = make_instance("7")
    text = records.encode(one)
    assert b"disk" not in text
    assert records.decode(text, Path("7.json"), "7").disk == 0


def row(ability: Ability, *, bound: int = 0, bounded: int = 0) -> rows.Row:
    claims = tuple(
        Claim(str(number), 2200 + number, number, is_new=False, disk=M64)
        for number in range(bounded)
    )
    return bounds.row(rows.Asked(count=1, claims=claims, disk=bound), below(ability))


@pytest.mark.parametrize(
    ("means", "asked", "there_", "expected"),
    [
        (None, 0, 0, Status.OK),
        (None, M64, 0, Status.FAIL),
        (None, 0, 3, Status.WARN),
        (Means.PROJECT, M64, 3, Status.OK),
        (Means.QGROUP, 0, 0, Status.OK),
        (Means.QGROUP, M64, 0, Status.WARN),
        (Means.QGROUP, 0, 3, Status.WARN),
    ],
)
def test_doctor_tells_what_bounds_a_disk(
    means: Means | None, asked: int, there_: int, expected: Status
) -> None:
    found = row(Ability(means=means, lacking="no", todo="do"), bound=asked, bounded=there_)
    assert (found.status, bool(found.todo)) == (expected, expected is not Status.OK)
    assert found.stage is Stage.DEPLOY or expected is not Status.FAIL


STATUS = Row(
    name="nifty1",
    port=2201,
    image="a" * 64,
    state=systemd.State.INACTIVE,
    answers=None,
    is_asked=True,
    memory=None,
    disk=3 << 20,
    disk_limit=M64,
)


def test_status_shows_use_beside_the_bound() -> None:
    free = replace(STATUS, disk=None, disk_limit=None)
    hidden = replace(STATUS, disk=None)
    table = status.as_table([STATUS, free, hidden])
    assert [line[6] for line in table] == ["disk", "3.0M of 64M", "-", "? of 64M"]


def test_this_file_system_is_told_with_what_is_to_be_done(tmp_path: Path) -> None:
    found = quota.ability(tmp_path)
    assert (found.means is None) == bool(found.lacking) == bool(found.todo)


def test_what_was_made_without_a_bound_has_none(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = os.open(tmp_path / "plain", os.O_RDONLY)
    above = os.open(tmp_path, os.O_RDONLY)
    try:
        assert quota.use(plain) is None
        assert quota.forgetting(above, "plain") is None
        with pytest.raises(OSError, match="without a bound") as caught:
            quota.limit(plain, M64)
        assert caught.value.errno == errno.EOPNOTSUPP
    finally:
        os.close(plain)
        os.close(above)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs for everybody here")
def test_a_bound_that_cannot_be_leaves_no_directory() -> None:
    above = os.open("/dev/shm", os.O_RDONLY)
    name = f"nifty-{os.getpid()}"
    try:
        with pytest.raises(OSError, match=r"\["):
            quota.make(above, name.encode(), projects=[524288], size=M64)
        assert not Path("/dev/shm", name).exists()
    finally:
        os.close(above)
