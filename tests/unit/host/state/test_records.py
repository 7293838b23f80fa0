"""What the host records of an instance, and how it is read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files
from pipeline.host.state import records
from pipeline.host.state.batch import Batch
from pipeline.host.state.layout import Layout, prepare
from pipeline.host.state.records import Instance, Runner, Share, StateError, Users
from tests.support.instances import make_instance

DIGEST = st.from_regex(records.DIGEST, fullmatch=True)
INSTANCES = st.builds(
    Instance,
    suffix=st.from_regex(records.SUFFIX, fullmatch=True),
    number=st.integers(0, 2**31),
    port=st.integers(1, 65535),
    image=DIGEST,
    previous=st.none() | DIGEST,
    share=st.sampled_from(Share),
    users=st.just(Users.PRIVATE),
    base=st.integers(1, 2**32 - 65536),
    runner=st.sampled_from(Runner),
    host_key=st.from_regex(records._HOST_KEY, fullmatch=True),
    machine_id=st.from_regex(records._MACHINE_ID, fullmatch=True),
    login=st.from_regex(records._LOGIN, fullmatch=True),
    boot=st.booleans(),
    register=st.booleans(),
    fleet=st.booleans(),
    disk=st.integers(0, 1 << 50),
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    prepare(made)
    return made


@given(INSTANCES)
def test_an_instance_comes_back_as_it_was(instance: Instance) -> None:
    path = Path("7.json")
    assert records.decode(records.encode(instance), path, instance.suffix) == instance


def test_every_field_has_a_reader() -> None:
    assert set(records._FIELDS) == {field.name for field in dataclasses.fields(Instance)}


def test_instances_are_read_in_their_order(layout: Layout) -> None:
    for suffix in ("10", "slick", "9", "", "alpha"):
        records.write(layout, make_instance(suffix))
    assert [one.suffix for one in records.read_all(layout)] == ["9", "10", "", "alpha", "slick"]


def test_nothing_is_known_before_the_first_deploy(tmp_path: Path) -> None:
    assert records.read_all(Layout(tmp_path)) == ()


def test_an_unknown_instance_is_none(layout: Layout) -> None:
    assert records.read(layout, "7") is None


def test_a_removed_instance_is_none(layout: Layout) -> None:
    records.write(layout, make_instance("7"))
    records.remove(layout, "7")
    assert records.read(layout, "7") is None


def test_writing_leaves_nothing_behind(layout: Layout) -> None:
    records.write(layout, make_instance("7"))
    assert list(layout.new.iterdir()) == []


def test_a_batch_that_is_dropped_leaves_the_old_text(layout: Layout) -> None:
    records.write(layout, make_instance("7"))
    before = (layout.instances / "7.json").read_bytes()
    batch = Batch(layout)
    records.record(batch, layout, make_instance("7", port=9))
    batch.drop()
    assert not batch.commit()
    assert (layout.instances / "7.json").read_bytes() == before
    assert list(layout.new.iterdir()) == []


def test_contents_are_on_the_disk_before_any_name(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(files, "sync", lambda _path: seen.append(names(layout)))
    batch = Batch(layout)
    for suffix in ("1", "2"):
        records.record(batch, layout, make_instance(suffix))
    batch.commit()
    assert seen == [[], ["1.json", "2.json"]]


def names(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.instances.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "state of format 2, this program reads 1"),
        ({"port": "2207"}, "port: expected a whole number from 1 to 65535, found '2207'"),
        ({"port": True}, "port: expected a whole number from 1 to 65535, found True"),
        ({"boot": 1}, "boot: expected true or false, found 1"),
        ({"suffix": 7}, "suffix: expected text, found 7"),
        ({"share": "all"}, "share: expected cbin or none, found 'all'"),
        ({"colour": "red"}, "missing or unknown: colour"),
        ({"suffix": "8"}, "holds the state of nifty8"),
    ],
)
def test_damage_is_named(layout: Layout, change: dict[str, object], told: str) -> None:
    table = json.loads(records.encode(make_instance("7")))
    path = layout.instances / "7.json"
    path.write_text(json.dumps(table | change))
    with pytest.raises(StateError) as caught:
        records.read(layout, "7")
    assert caught.value.message == f"{path}: {told}"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": 1}'])
def test_what_is_no_state_names_its_file(layout: Layout, text: str) -> None:
    path = layout.instances / "7.json"
    path.write_text(text)
    (bad,) = records.look(layout).damaged
    assert str(path) in bad.why


def test_the_last_range_ends_where_systemd_says() -> None:
    assert records.base_of(records.LAST_SLOT, Users.PRIVATE) + records.RANGE == 0x70000000
