"""Which instances a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.host.wanted import Target, Wanted, WantedError, named, numbered


def test_a_count_starts_at_one() -> None:
    assert numbered(2) == (Target("1"), Target("2"))


def test_a_port_is_a_base_for_numbers() -> None:
    assert numbered(2, first=3, port=5000) == (Target("3", 5003), Target("4", 5004))


@pytest.mark.parametrize(("count", "first"), [(0, 1), (1, 0), (-1, 1)])
def test_no_range_is_refused(count: int, first: int) -> None:
    with pytest.raises(WantedError, match="at least 1 each"):
        numbered(count, first=first)


def test_a_name_has_exactly_its_port() -> None:
    assert named(["slick"], port=2100) == (Target("slick", 2100),)


@pytest.mark.parametrize(
    ("name", "suffix"), [("7", "7"), ("nifty7", "7"), ("niftyslick", "slick"), ("nifty", "")]
)
def test_a_name_may_be_long_or_short(name: str, suffix: str) -> None:
    assert named([name]) == (Target(suffix),)


@pytest.mark.parametrize(
    "name", ["07", "0", "Slick", "../x", "a b", "-a", "a-", "a" * 59, "٣", "a\n"]
)
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(WantedError):
        named([name])


def test_the_whole_name_is_told() -> None:
    with pytest.raises(WantedError, match="nifty-gawk: after 'nifty' small letters, digits"):
        named(["nifty-gawk"])


def test_all_problems_are_told() -> None:
    with pytest.raises(WantedError) as caught:
        named(["A", "b", "b"], port=1)
    assert len(caught.value.problems) == 3


def test_a_wrong_name_is_bad_usage() -> None:
    with pytest.raises(WantedError) as caught:
        named([])
    assert caught.value.exit_code == 2


def test_a_relative_prefix_is_refused() -> None:
    with pytest.raises(WantedError, match="begins with /"):
        Wanted(targets=(), prefix=Path("home"))
