"""Joining below a root: what is not plainly below it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.paths import PathError, beneath, relative

ROOT = Path("/root/of/all")


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/../b", "../a", "a\0b", "\0"]
)
def test_what_is_not_clean_is_refused(name: str) -> None:
    with pytest.raises(PathError, match="not a clean relative path"):
        beneath(ROOT, name)


@pytest.mark.parametrize("name", ["a", "a/b", "...", "..a", "a b", "-", "~", "a\\b", "é"])
def test_a_clean_name_is_joined_as_it_is(name: str) -> None:
    assert str(beneath(ROOT, name)) == f"/root/of/all/{name}"


@given(st.text(alphabet="a./\0", max_size=9))
def test_a_name_is_refused_or_stays_below(name: str) -> None:
    try:
        path = relative(name)
    except PathError:
        return
    assert str(path) == name
    assert not path.is_absolute()
    assert ".." not in path.parts
