"""Variables of the command line: checked whole, and a slip names the right one."""

from __future__ import annotations

import os
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.builder.recipes.component import Extract
from pipeline.host import inside
from pipeline.release import names
from pipeline.settings import Settings, VariablesError

IMAGES = ("nifty", "nifty-prebuilt")


def problems(**variables: str) -> tuple[str, ...]:
    with pytest.raises(VariablesError) as caught:
        settings.parse(variables, images=IMAGES)
    return caught.value.problems


def test_without_variables_the_defaults_hold() -> None:
    found = settings.parse({}, images=IMAGES)
    assert (found.image, found.offline, found.count) == ("nifty", False, None)


def test_the_machine_s_own_architecture_is_the_default() -> None:
    machine = os.uname().machine
    expected = machine if machine in settings.ARCHITECTURES else Settings().arch
    assert settings.parse({}, images=IMAGES).arch == expected


def test_every_room_knows_the_same_architectures() -> None:
    known = settings.ARCHITECTURES
    assert get_args(Extract.model_fields["architecture"].annotation) == known
    assert tuple(names.WORDS) == known
    assert tuple(inside._KEYCTL) == known


def test_every_variable_is_taken() -> None:
    given_ = {"image": "nifty-prebuilt", "arch": "aarch64", "offline": "yes", "jobs": "3",
              "format": "json", "file": "/bin/ls", "count": "1000"}  # fmt: skip
    found = settings.parse(given_, images=IMAGES)
    assert found == Settings(
        image="nifty-prebuilt", arch="aarch64", arches=("aarch64",), offline=True, jobs=3,
        format="json", file="/bin/ls", count=1000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("imgae", "image"), ("ofline", "offline"), ("job", "jobs"), ("Count", "count")],
)
def test_a_misspelt_variable_names_the_right_one(wrong: str, right: str) -> None:
    assert problems(**{wrong: "1"}) == (f"{wrong}=1: no such variable; did you mean {right}=?",)


def test_a_variable_like_no_other_lists_all() -> None:
    (line,) = problems(zzz="1")
    assert line.startswith("zzz=1: no such variable; known: apply, arch, ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("offline", "true", "yes or no"),
        ("offline", "", "yes or no"),
        ("arch", "x86-64", "x86_64 or aarch64 or riscv64; did you mean 'x86_64'?"),
        ("arch", "mips", "x86_64 or aarch64 or riscv64"),
        ("format", "jsn", "did you mean 'json'?"),
        ("jobs", "0", "a whole number from 1 to 1024"),
        ("jobs", "-1", "a whole number from 1 to 1024"),
        ("jobs", "2.0", "a whole number from 1 to 1024"),
        ("jobs", "٣", "a whole number from 1 to 1024"),
        ("jobs", "", "a whole number from 1 to 1024"),
        ("jobs", "9" * 5000, "a whole number from 1 to 1024"),
        ("tag", "-x", "a tag: letters, digits, '_', '.', '-', at most 128, such as 2026.11"),
        ("tag", "a" * 129, "a tag: letters, digits, '_', '.', '-', at most 128, such as 2026.11"),
        ("count", "63336", "a whole number from 1 to 63335"),
        ("name", "Slick", "the name of an instance"),
        ("names", "1,,B", "the name of an instance"),
        ("prefix", "home", "an absolute path"),
        ("prefix", "/home/../etc", "an absolute path"),
        ("port", "65536", "a whole number from 1 to 65535"),
        ("share", "cbim", "did you mean 'cbin'?"),
        ("image", "nifty\n", "the name of a recipe"),
        ("image", "", "the name of a recipe"),
        ("image", "nity", "no recipes/images/nity.toml; did you mean 'nifty'?"),
        ("image", "zzz", "there are: nifty, nifty-prebuilt"),
        ("file", "", "the path of a file"),
        ("file", "a\0b", "the path of a file"),
    ],
)
def test_an_impossible_value_says_what_is_possible(name: str, value: str, expected: str) -> None:
    (line,) = problems(**{name: value})
    assert expected in line


def test_an_image_may_be_an_archive() -> None:
    assert settings.parse({"image": "../x.tar.zst"}, images=IMAGES).image_is_path


def test_instances_are_named_with_and_without_nifty() -> None:
    assert settings.parse({"names": "1,nifty7,slick"}, images=IMAGES).names == (
        "nifty1", "nifty7", "niftyslick",
    )  # fmt: skip


def test_the_nameless_instance_can_be_meant() -> None:
    assert settings.parse({"name": ""}, images=IMAGES).name == ""


def test_name_and_count_contradict_each_other() -> None:
    (line,) = problems(name="slick", count="3")
    assert line.endswith("give one")


def test_all_problems_at_once() -> None:
    assert len(problems(imgae="x", jobs="0", offline="maybe", image="zzz")) == 4


def test_it_is_bad_usage() -> None:
    with pytest.raises(VariablesError) as caught:
        settings.parse({"zzz": "1"}, images=IMAGES)
    assert caught.value.exit_code == 2


@given(st.dictionaries(st.sampled_from(["image", "jobs", "file", "offline", "x"]), st.text()))
def test_any_text_is_a_value_or_a_problem(variables: dict[str, str]) -> None:
    try:
        found = settings.parse(variables, images=IMAGES)
    except VariablesError as error:
        found = Settings()
        assert error.problems  # noqa: PT017 (which of the two it is, is what differs)
    assert found.image in IMAGES or found.image_is_path


@pytest.mark.parametrize("name", ["nifty-gawk", "-gawk"])
def test_no_name_loses_its_beginning_without_a_word(name: str) -> None:
    told = "expected the name of an instance: a letter or a number first, not '-gawk'"
    assert problems(name=name) == (f"name={name}: {told}",)
    assert problems(names=f"1,{name}") == (f"names=1,{name}: {told}",)


def test_several_architectures_are_several_and_the_first_is_the_one() -> None:
    found = settings.parse({"arch": "aarch64,x86_64"}, images=IMAGES)
    assert (found.arch, found.arches) == ("aarch64", ("aarch64", "x86_64"))


def test_without_a_checkout_an_image_is_a_file() -> None:
    with pytest.raises(VariablesError) as caught:
        settings.parse({"image": "nifty"}, images=None)
    assert caught.value.problems == (
        "image=nifty: expected the path of an archive, or the URL of a release",
    )
    assert settings.parse({"image": "./x.tar"}, images=None).image == "./x.tar"
