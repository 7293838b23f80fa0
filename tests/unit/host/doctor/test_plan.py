"""From facts to actions: a table, without a file system."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.host.doctor.facts import Facts
from pipeline.host.doctor.plan import ask, plan
from pipeline.host.doctor.rows import PlanError
from pipeline.host.doctor.site import PrefixFacts, Site, UserRange
from pipeline.host.roots.actions import Clean, Create, Plan, StoreImage, WriteLists
from pipeline.host.roots.needs import Needs
from pipeline.host.state.records import Runner, Share, Users
from pipeline.host.wanted import Target, Wanted, named, numbered
from tests.support.instances import make_instance

IMAGE, OTHER = "a" * 64, "b" * 64
ROOM = PrefixFacts(path=Path("/home"), exists=True, free_bytes=1 << 30, free_inodes=100_000)
SITE = Site(prefix=ROOM, listening={}, ephemeral=(32768, 60999))
EMPTY = Facts(site=SITE)
SUBUID = UserRange(owner="eve", start=600000, count=65536, file="/etc/subuid")
NEEDS = Needs(digest=IMAGE, files=(10, 5000), directories=3, links=2, once=1 << 20)


def planned(targets: tuple[Target, ...], facts: Facts = EMPTY, **fields: object) -> Plan:
    return plan(Wanted(targets=targets, **fields), facts, NEEDS)  # type: ignore[arg-type]


def at(**changed: Any) -> Facts:
    """Facts of an empty host whose site or prefix is so."""
    inside = {field.name for field in fields(PrefixFacts)} & changed.keys()
    room = replace(ROOM, **{name: changed.pop(name) for name in inside})
    return replace(EMPTY, site=replace(SITE, prefix=room, **changed))


def there(*suffixes: str, base: Facts = EMPTY) -> Facts:
    """Facts of a host where these are deployed."""
    instances = tuple(
        make_instance(
            suffix,
            number=int(suffix) if suffix.isdecimal() else 28663,
            port=2200 + int(suffix) if suffix.isdecimal() else 2100,
            image=IMAGE,
        )
        for suffix in suffixes
    )
    roots = frozenset(one.name for one in instances)
    return replace(base, instances=instances, roots=roots, images=frozenset([IMAGE]))


def problems(targets: tuple[Target, ...], facts: Facts = EMPTY, **fields: object) -> list[str]:
    with pytest.raises(PlanError) as caught:
        planned(targets, facts, **fields)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("targets", "facts", "expected"),
    [
        (
            numbered(2),
            EMPTY,
            [StoreImage(IMAGE), Create("1", 1, 2201), Create("2", 2, 2202), WriteLists()],
        ),
        (numbered(2), there("1", "2"), []),
        (numbered(3), there("1", "2"), [Create("3", 3, 2203), WriteLists()]),
        (numbered(1), there("1", "2"), []),
        (
            numbered(1, first=5, port=5000),
            EMPTY,
            [StoreImage(IMAGE), Create("5", 5, 5005), WriteLists()],
        ),
        (
            named(["slick"], port=2100),
            there("1"),
            [Create("slick", 28663, 2100), WriteLists()],
        ),
        (named(["slick"]), there("slick"), []),
        (
            (Target("other", 2101),),
            there("slick"),
            [Create("other", 28662, 2101), WriteLists()],
        ),
        (
            numbered(1),
            replace(there("1"), roots=frozenset()),
            [Create("1", 1, 2201, finish=True), WriteLists()],
        ),
        (numbered(1), replace(there("1"), leftovers=("123",)), [Clean("123")]),
        (numbered(1), replace(there("1"), lists_current=False), [WriteLists()]),
        (
            numbered(1),
            replace(EMPTY, images=frozenset([OTHER])),
            [StoreImage(IMAGE), Create("1", 1, 2201), WriteLists()],
        ),
    ],
)
def test_facts_lead_to_actions(
    targets: tuple[Target, ...], facts: Facts, expected: list[object]
) -> None:
    assert list(planned(targets, facts).actions) == expected


def test_an_unfinished_instance_keeps_its_port_and_slot() -> None:
    facts = replace(there("slick"), roots=frozenset())
    (action,) = planned(named(["slick"]), facts).creations
    assert action == Create("slick", 28663, 2100, finish=True)


def test_ports_may_end_at_65535() -> None:
    assert planned(numbered(1, first=100, port=65435)).creations[0].port == 65535


@pytest.mark.parametrize(
    ("targets", "facts", "told"),
    [
        (numbered(1, port=65535), EMPTY, ["nifty1: port 65536 is outside 1-65535"]),
        (named(["x"], port=0), EMPTY, ["niftyx: port 0 is outside 1-65535"]),
        (
            numbered(1),
            at(listening={2201: frozenset([33])}),
            ["nifty1: port 2201 is taken by user 33 of this host (ss -ltnp)"],
        ),
        (
            numbered(2),
            replace(there("1"), site=at(listening={2202: frozenset([590824])}).site),
            ["nifty2: port 2202 is taken by user 1000 of nifty1 (ss -ltnp)"],
        ),
        (named(["x"], port=2201), there("1"), ["niftyx: port 2201 is given to nifty1"]),
        (
            (Target("1"), Target("x", 2201)),
            EMPTY,
            ["niftyx: port 2201 is given to nifty1"],
        ),
        (
            numbered(2),
            replace(EMPTY, roots=frozenset(["nifty2"])),
            ["nifty2 is there and was not made by this program: it stays untouched"],
        ),
        (named(["x"]), EMPTY, ["niftyx: a new instance with a name needs port="]),
        (
            numbered(1, port=5000),
            there("1"),
            ["nifty1 is deployed with port 2201, which 5001 cannot replace"],
        ),
        (
            numbered(1, first=28664),
            EMPTY,
            ["nifty28664: user ranges end with number 28663 (or users=host)"],
        ),
        (
            numbered(1, first=28663),
            there("slick"),
            ["nifty28663: its user range is held by niftyslick"],
        ),
        (
            numbered(10),
            at(free_bytes=1 << 20),
            ["not enough disk: 10 instances take 1.4 MiB, 1.0 MiB are free"],
        ),
        (
            numbered(10),
            at(free_inodes=89),
            ["not enough inodes: 10 instances take 100, 89 are free"],
        ),
        (
            numbered(1),
            replace(EMPTY, is_root=False),
            ["only root can give instances user ids of their own (users=private)"],
        ),
    ],
)
def test_what_cannot_be_is_told(targets: tuple[Target, ...], facts: Facts, told: list[str]) -> None:
    assert problems(targets, facts) == told


def test_all_problems_are_told_at_once() -> None:
    facts = replace(at(listening={2202: frozenset([0])}, free_bytes=1), roots=frozenset(["nifty1"]))
    assert len(problems(numbered(3), facts)) == 3


def test_a_listener_on_its_own_port_is_the_instance_itself() -> None:
    facts = replace(there("1"), site=at(listening={2201: frozenset([589824])}).site)
    assert planned(numbered(1), facts).actions == ()


def test_a_file_system_without_inode_counts_is_not_asked() -> None:
    facts = at(free_inodes=None)
    assert len(planned(numbered(1000), facts).creations) == 1000


def test_the_hosts_users_need_no_range() -> None:
    assert planned(numbered(1, first=28664), users=Users.HOST).creations[0].port == 30864


@pytest.mark.parametrize(
    ("targets", "facts", "word"),
    [
        (
            numbered(1000),
            EMPTY,
            "2375-2377 (Docker), 2378-2380 (etcd), 3000 (Grafana)",
        ),
        (numbered(1, port=40000), EMPTY, "1 port from 40001 on is ephemeral here (32768-60999)"),
        (numbered(1), replace(there("1"), images=frozenset()), ""),
        (
            numbered(1),
            replace(there("1"), instances=(make_instance("1", image=OTHER),)),
            "nifty1 stay on another image; 'doit upgrade' moves them",
        ),
        (
            numbered(1, first=2),
            replace(there("1"), roots=frozenset()),
            "nifty1 have no root: deploy or undeploy them by name",
        ),
        (
            numbered(2),
            at(user_ranges=(SUBUID, replace(SUBUID, file="/etc/subgid"))),
            "user eve may use ids of nifty1 and 1 more (/etc/subuid gives him 600000-665535)",
        ),
        (
            numbered(1),
            at(user_ranges=(replace(SUBUID, owner="adam", start=100000),)),
            "",
        ),
    ],
)
def test_what_may_surprise_is_warned_of(
    targets: tuple[Target, ...], facts: Facts, word: str
) -> None:
    warnings = "\n".join(planned(targets, facts).warnings)
    assert word in warnings
    assert bool(word) == bool(warnings)


def test_another_share_is_warned_of() -> None:
    (warning,) = planned(numbered(1), there("1"), share=Share.NONE).warnings
    assert "stay with another share= or users=" in warning


def known(*names: str, **changed: object) -> Facts:
    """Facts of a host with instances *names*, all of them with *changed*."""
    base = there(*names)
    ones = tuple(replace(one, **changed) for one in base.instances)  # type: ignore[arg-type]
    return replace(base, instances=ones)


def both(*several: Facts) -> Facts:
    return replace(
        several[0],
        instances=tuple(one for facts in several for one in facts.instances),
        roots=frozenset(name for facts in several for name in facts.roots),
    )


def test_what_is_asked_for_comes_to_what_runs() -> None:
    facts = there("1", "2", "3")
    wanted = Wanted(targets=named(["1", "x"], port=None) + numbered(1, first=9))
    asked = ask(wanted, facts, NEEDS, running=frozenset(("nifty2", "nifty1")))
    # x has no port and cannot be
    assert (asked.count, asked.running, [one.name for one in asked.claims]) == (
        3,
        2,
        ["nifty9", "nifty1"],
    )
    assert asked.words == "2 instances beside 1 that run"


@pytest.mark.parametrize(
    ("facts", "fields_", "running", "registered"),
    [
        # one that is registered beside many that are not
        (known("1", "2", "3"), {"register": True}, ("nifty1", "nifty2", "nifty3"), 1),
        (both(known("9", register=True), known("1", "2")), {}, (), 1),
        (both(known("1", register=True), known("2", "3")), {}, ("nifty1", "nifty2"), 1),
        (known("1", "2", register=True), {"register": True}, ("nifty1", "nifty2"), 3),
        # a service is known to nobody
        (EMPTY, {"register": True, "runner": Runner.SERVICE}, (), 0),
        (known("1", register=True, runner=Runner.SERVICE), {}, ("nifty1",), 0),
    ],
)
def test_registered_ones_are_counted_and_no_others(
    facts: Facts, fields_: dict[str, Any], running: tuple[str, ...], registered: int
) -> None:
    wanted = Wanted(targets=numbered(1, first=9), **fields_)
    assert ask(wanted, facts, NEEDS, running=frozenset(running)).registered == registered


@pytest.mark.parametrize(
    ("facts", "forced", "runner"),
    [
        (EMPTY, None, Runner.SERVICE),
        (known("9"), None, Runner.NSPAWN),
        (known("9", runner=Runner.SERVICE), None, Runner.SERVICE),
        (known("1"), None, Runner.NSPAWN),  # which runs, and takes more
        (known("1", "9"), Runner.SERVICE, Runner.SERVICE),
    ],
)
def test_the_runner_that_takes_most_is_reckoned_with(
    facts: Facts, forced: Runner | None, runner: Runner
) -> None:
    wanted = Wanted(targets=numbered(1, first=9), runner=Runner.SERVICE)
    asked = ask(wanted, facts, NEEDS, running=frozenset(["nifty1"]), runner=forced)
    assert asked.runner is runner


def test_every_action_is_one_line() -> None:
    facts = replace(EMPTY, leftovers=("123",))
    assert [str(action) for action in planned(numbered(1), facts).actions] == [
        "remove .nifty/new/123, left by a run that was killed",
        "write image aaaaaaaaaaaa to cbin/ and .nifty/images/",
        "create nifty1, port 2201",
        "write .nifty/known_hosts and .nifty/ssh_config",
    ]


def test_a_plan_that_does_nothing_says_so() -> None:
    assert planned(numbered(1), there("1")).lines() == ("nothing to do",)


def test_warnings_come_before_actions() -> None:
    lines = planned(numbered(1, port=40000)).lines()
    assert lines[0].startswith("warning: 1 port from 40001")
    assert len(lines) == 4
