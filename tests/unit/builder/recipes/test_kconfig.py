"""Fragments over a configuration, and which of their lines did not hold."""

from __future__ import annotations

import pytest

from pipeline.builder.recipes import kconfig
from pipeline.paths import PROJECT

BASE = """\
# Automatically generated make config: don't edit
CONFIG_STATIC=n
# CONFIG_TC is not set
CONFIG_LONG_NAME="a b=c"
CONFIG_LONG=3
"""


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("CONFIG_X=y", "CONFIG_X"),
        ('CONFIG_X="a=b # c"', "CONFIG_X"),
        ("# CONFIG_X is not set", "CONFIG_X"),
        ("# CONFIG_X was not set", None),
        ("# a comment on CONFIG_X=y", None),
        ("#CONFIG_X is not set", None),
        ("CONFIG_X", None),
        ("", None),
    ],
)
def test_the_option_that_a_line_sets(line: str, option: str | None) -> None:
    assert kconfig.key(line) == option


@pytest.mark.parametrize("setting", ["CONFIG_STATIC=y", "# CONFIG_STATIC is not set"])
def test_a_setting_takes_the_place_of_the_old_one(setting: str) -> None:
    lines = kconfig.overlay(BASE, [setting]).splitlines()
    assert [line for line in lines if "STATIC" in line] == [setting]


def test_a_setting_can_switch_on_what_is_off() -> None:
    lines = kconfig.overlay(BASE, ["CONFIG_TC=y"]).splitlines()
    assert [line for line in lines if "_TC" in line] == ["CONFIG_TC=y"]


def test_an_option_whose_name_only_begins_alike_stays() -> None:
    assert 'CONFIG_LONG_NAME="a b=c"' in kconfig.overlay(BASE, ["CONFIG_LONG=4"]).splitlines()


def test_a_new_option_is_added() -> None:
    assert kconfig.overlay(BASE, ["CONFIG_NEW=y"]) == f"{BASE}CONFIG_NEW=y\n"


def test_everything_holds_after_the_overlay() -> None:
    settings = ["CONFIG_STATIC=y", "# CONFIG_LONG is not set", 'CONFIG_NEW="x"']
    assert kconfig.unmet(kconfig.overlay(BASE, settings), settings) == []


def test_off_and_absent_are_the_same() -> None:
    assert kconfig.unmet(BASE, ["# CONFIG_TC is not set", "# CONFIG_ABSENT is not set"]) == []


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("CONFIG_STATIC=y", "CONFIG_STATIC=n"),
        ("CONFIG_TC=y", "# CONFIG_TC is not set"),
        ("CONFIG_ABSENT=y", "# CONFIG_ABSENT is not set"),
        ("# CONFIG_LONG is not set", "CONFIG_LONG=3"),
    ],
)
def test_what_does_not_hold_is_told(setting: str, found: str) -> None:
    assert kconfig.unmet(BASE, [setting]) == [f"wanted {setting!r}, got {found!r}"]


def test_all_that_does_not_hold_is_told() -> None:
    assert len(kconfig.unmet(BASE, ["CONFIG_STATIC=y", "CONFIG_TC=y", "CONFIG_LONG=3"])) == 2


def test_every_line_of_busybox_s_fragment_is_a_comment_or_a_setting() -> None:
    text = (PROJECT / "recipes/components/busybox/config").read_text()
    wrong = [
        line
        for line in text.splitlines()
        if line and kconfig.key(line) is None and not (line.startswith("# ") and "=" not in line)
    ]
    assert wrong == []
