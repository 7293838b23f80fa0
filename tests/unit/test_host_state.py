"""What the host records of an instance, and how it is read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from fleet import make_instance
from hypothesis import given
from hypothesis import strategies as st

from pipeline.host import state
from pipeline.host.layout import Layout, prepare
from pipeline.host.state import Instance, Runner, Share, StateError, Users

TEXT = st.text(max_size=40)
WHOLE = st.integers(0, 2**31)
INSTANCES = st.builds(
    Instance,
    suffix=TEXT,
    number=WHOLE,
    port=WHOLE,
    image=TEXT,
    previous=st.none() | TEXT,
    share=st.sampled_from(Share),
    users=st.sampled_from(Users),
    base=WHOLE,
    runner=st.sampled_from(Runner),
    host_key=TEXT,
    machine_id=TEXT,
    login=TEXT,
    boot=st.booleans(),
    register=st.booleans(),
    fleet=st.booleans(),
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    prepare(made)
    return made


@given(INSTANCES)
def test_an_instance_comes_back_as_it_was(instance: Instance) -> None:
    path = Path("7.json")
    assert state.decode(state.encode(instance), path, instance.suffix) == instance


def test_every_field_has_a_reader() -> None:
    assert set(state._FIELDS) == {field.name for field in dataclasses.fields(Instance)}


def test_instances_are_read_in_their_order(layout: Layout) -> None:
    for suffix in ("10", "slick", "9", "", "alpha"):
        state.write(layout, make_instance(suffix))
    assert [one.suffix for one in state.read_all(layout)] == ["9", "10", "", "alpha", "slick"]


def test_nothing_is_known_before_the_first_deploy(tmp_path: Path) -> None:
    assert state.read_all(Layout(tmp_path)) == ()


def test_an_unknown_instance_is_none(layout: Layout) -> None:
    assert state.read(layout, "7") is None


def test_a_removed_instance_is_none(layout: Layout) -> None:
    state.write(layout, make_instance("7"))
    state.remove(layout, "7")
    assert state.read(layout, "7") is None


def test_writing_leaves_nothing_behind(layout: Layout) -> None:
    state.write(layout, make_instance("7"))
    assert list(layout.new.iterdir()) == []


def test_a_failed_write_leaves_the_old_text(layout: Layout) -> None:
    with pytest.raises(OSError, match="directory"):
        state.write_atomic(layout, layout.instances, b"{}")
    assert list(layout.new.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "state of format 2, this program reads 1"),
        ({"port": "2207"}, "expected a whole number, found '2207'"),
        ({"port": True}, "expected a whole number, found True"),
        ({"boot": 1}, "expected true or false, found 1"),
        ({"suffix": 7}, "expected text, found 7"),
        ({"share": "all"}, "'all' is not a valid Share"),
        ({"colour": "red"}, "missing or unknown: colour"),
        ({"suffix": "8"}, "holds the state of nifty8"),
    ],
)
def test_damage_is_named(layout: Layout, change: dict[str, object], told: str) -> None:
    table = json.loads(state.encode(make_instance("7")))
    path = layout.instances / "7.json"
    path.write_text(json.dumps(table | change))
    with pytest.raises(StateError) as caught:
        state.read(layout, "7")
    assert caught.value.message == f"{path}: {told}"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": 1}'])
def test_what_is_no_state_names_its_file(layout: Layout, text: str) -> None:
    path = layout.instances / "7.json"
    path.write_text(text)
    with pytest.raises(StateError) as caught:
        state.read_all(layout)
    assert str(path) in caught.value.message


def test_the_last_range_ends_where_systemd_says() -> None:
    assert state.base_of(state.LAST_SLOT, Users.PRIVATE) + state.RANGE == 0x70000000
