"""Who was stopped for a change runs again, whatever kills the run between."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import files
from pipeline.commands import deploy, rolling
from pipeline.host.doctor import standing
from pipeline.host.roots.upgrade import UpgradeError
from pipeline.host.state import owed, records
from pipeline.host.state.layout import Layout, changing, is_changing, prepare
from pipeline.host.state.owed import Owed, OwedError
from pipeline.host.state.records import Runner, Users
from pipeline.host.units import control, sync, systemd, watch
from pipeline.host.units.control import FleetError
from pipeline.host.units.systemd import State
from pipeline.host.wanted import Wanted, numbered
from pipeline.image.rootfs import File
from tests.support.host_image import key_file, make_image
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pipeline.host.state.records import Instance

OLD = make_image()
NEW = make_image([File(path="etc/motd", content=b"welcome again\n")], version="2")
USERS = Users.PRIVATE if os.geteuid() == 0 else Users.HOST
RUNNING = {"nifty1", "nifty3"}
KILLED = 77
# What an audit hook hears before each step that another process could see (sys.addaudithook).
STEPS = {"os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "home")
    made.prefix.mkdir(mode=0o755)
    return made


class Systemd:
    """Units as files: what runs, and what starts with the host by which runner."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.up, self.wants = folder / "up", folder / "wants"
        for made in (self.up, self.wants):
            made.mkdir()
        patch.setattr(sync, "settle", lambda _layout: None)
        patch.setattr(sync, "follow", lambda *_, **__: None)
        patch.setattr(sync, "tell", lambda *_: ())
        patch.setattr(watch, "states", self._states)
        patch.setattr(control, "start", self._start)
        patch.setattr(control, "stop", partial(self._each, lambda one: _gone(self.up / one.name)))
        patch.setattr(
            control,
            "enable",
            partial(self._each, lambda one: self._want(one).mkdir(exist_ok=True)),
        )
        patch.setattr(control, "enabled", self._enabled)
        patch.setattr(control, "retire", partial(self._each, lambda one: _gone(self._want(one))))
        patch.setattr(systemd, "start", self._start_units)

    def running(self) -> set[str]:
        return set(os.listdir(self.up))  # noqa: PTH208 (bare names)

    def _want(self, one: Instance) -> Path:
        return self.wants / f"{one.name}.{one.runner}"

    def _each(self, step: Callable[[Instance], object], some: Sequence[Instance]) -> None:
        for one in some:
            step(one)

    def _start(self, some: Sequence[Instance]) -> None:
        for one in some:
            (self.up / one.name).mkdir(exist_ok=True)

    def _start_units(self, units: Iterable[str]) -> None:
        for unit in units:
            (self.up / f"nifty{unit.split('@')[1].split('.')[0]}").mkdir(exist_ok=True)

    def _enabled(self, some: Sequence[Instance]) -> tuple[Instance, ...]:
        return tuple(one for one in some if self._want(one).exists())

    def _states(self, some: Sequence[Instance]) -> dict[str, State]:
        up = self.running()
        return {one.name: State.ACTIVE if one.name in up else State.INACTIVE for one in some}


def _gone(path: Path) -> None:
    # a rename is a step that is heard; rmdir(2) is another one, of nobody's interest
    if path.exists():
        target = path.with_name(f".{path.name}")
        path.rename(target)
        target.rmdir()


@pytest.fixture
def units(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """Three instances, two of them running, one of these and the third start with the host."""
    deploy.deploy(
        Wanted(
            targets=numbered(3, port=20000),
            prefix=layout.prefix,
            users=USERS,
            authorized_keys=key_file(tmp_path),
        ),
        OLD,
    )
    made = Systemd(tmp_path, monkeypatch)
    for name in RUNNING:
        (made.up / name).mkdir()
    for name in ("nifty1", "nifty2"):
        (made.wants / f"{name}.nspawn").mkdir()
    return made


def killed_before(step: int, change: Callable[[], object]) -> bool:
    """Whether *change*, in a process of its own, was ended before its step number *step*."""
    child = os.fork()
    if child == 0:
        left = step

        def hear(event: str, _arguments: Any) -> None:
            nonlocal left
            if event in STEPS:
                if left == 0:
                    os._exit(KILLED)
                left -= 1

        sys.addaudithook(hear)
        code = 1
        try:
            change()
            code = 0
        finally:
            os._exit(code)
    _pid, ended = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(ended)
    assert code in (0, KILLED)
    return code == KILLED


def upgrade(layout: Layout, image: Any = NEW) -> None:
    chosen = records.read_all(layout)
    with rolling.finishing(layout, chosen):
        rolling.upgrade(layout, chosen, image, batch=2)
    rolling.tidy(layout)


def change_runner(layout: Layout) -> None:
    chosen = records.read_all(layout)
    with rolling.finishing(layout, chosen):
        rolling.change_runner(layout, chosen, Runner.SERVICE, batch=2)


def restart_two(layout: Layout) -> None:
    rolling.restart(layout, [one for one in records.read_all(layout) if one.name in RUNNING])


@pytest.mark.parametrize("change", [upgrade, change_runner, restart_two])
def test_killed_at_any_step_the_rerun_starts_who_ran(
    layout: Layout,
    units: Systemd,
    change: Callable[[Layout], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "_refuse", lambda *_: None)
    # a kill loses nothing that was written, and a busy disk takes its time
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(files, "sync", lambda _folder: None)
    step = 0
    while killed_before(step, lambda: change(layout)):
        down = {
            one.name for one in owed.forgotten(layout, records.read_all(layout), units.running())
        }
        assert units.running() | down >= RUNNING, f"killed before step {step}"
        change(layout)
        assert units.running() == RUNNING, f"killed before step {step}"
        assert owed.read(layout) == Owed()
        runner = records.read_all(layout)[0].runner
        assert {path.name for path in units.wants.iterdir() if path.name[0] != "."} == {
            f"nifty1.{runner}",
            f"nifty2.{runner}",
        }, f"killed before step {step}"
        back(layout, change)
        step += 1
    assert step > 5


def back(layout: Layout, change: Callable[[Layout], None]) -> None:
    """To where the next round begins."""
    chosen = records.read_all(layout)
    with rolling.finishing(layout, chosen):
        if change is upgrade:
            rolling.upgrade(layout, chosen, OLD, batch=3)
        elif change is change_runner:
            rolling.change_runner(layout, chosen, Runner.NSPAWN, batch=3)


def test_rollback_of_some_starts_all_that_were_meant(layout: Layout, units: Systemd) -> None:
    owed.add(layout, run=["1", "3"])
    for name in RUNNING:
        _gone(units.up / name)
    chosen = records.read_all(layout)
    with pytest.raises(UpgradeError), rolling.finishing(layout, chosen):
        rolling.way_back(chosen)
    assert units.running() == RUNNING
    assert owed.read(layout) == Owed()


def test_a_killed_rollback_of_all_is_finished_by_the_next(
    layout: Layout, units: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(files, "sync", lambda _folder: None)
    upgrade(layout)
    before = records.read_all(layout)
    seen = set()
    step = 0
    while killed_before(step, partial(rolling.roll_back, layout, before, batch=1)):
        step += 5
        seen.add(sum(one.image == OLD.digest for one in records.read_all(layout)))
        # some have gone by now, and would come back
        rolling.roll_back(layout, records.read_all(layout), batch=1)
        assert {one.image for one in records.read_all(layout)} == {OLD.digest}, step
        upgrade(layout)
        assert owed.read(layout) == Owed()
    assert seen >= {0, 1, 2}


def test_a_rollback_of_all_that_parted_before_is_still_asked_about(
    layout: Layout, units: Systemd
) -> None:
    upgrade(layout)
    rolling.upgrade(layout, records.read_all(layout)[:1], None, batch=1)
    with pytest.raises(UpgradeError, match="nothing was rolled back"):
        rolling.roll_back(layout, records.read_all(layout), batch=1)
    assert owed.read(layout) == Owed()


def test_an_interrupt_leaves_nobody_down(
    layout: Layout, units: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert units.running() == {"nifty3"}
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.host.roots.upgrade.upgrade", interrupt)
    with pytest.raises(KeyboardInterrupt):
        upgrade(layout)
    assert units.running() == RUNNING
    assert owed.read(layout) == Owed()


def test_those_that_do_not_come_back_are_tried_once(
    layout: Layout, units: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(some: Sequence[Instance]) -> None:
        raise FleetError("silent:", [one.name for one in some])

    monkeypatch.setattr(control, "start", silent)
    with pytest.raises(FleetError, match="rollback=yes first=1 count=2"):
        upgrade(layout)
    assert owed.read(layout) == Owed()
    assert units.running() == {"nifty3"}


def test_who_cannot_be_recorded_is_not_stopped(layout: Layout, units: Systemd) -> None:
    layout.stopped.mkdir()
    with pytest.raises(OwedError, match="stopped: Is a directory: who is to run again"):
        upgrade(layout)
    assert units.running() == RUNNING


def test_status_and_doctor_name_them_and_the_way_out(layout: Layout) -> None:
    prepare(layout)
    there = [make_instance(str(number)) for number in range(1, 9)]
    owed.add(layout, run=[one.suffix for one in there])
    down = owed.forgotten(layout, there, {"nifty8"})
    (line,) = standing.forgotten_lines(down)
    assert line.startswith("nifty1, nifty2, nifty3, nifty4, nifty5 and 2 more: down, an upgrade,")
    assert line.endswith(": type that command again, or doit start first=1 count=7")
    (row,) = standing.forgotten_rows(there[:1])
    assert (row.found, row.status.value) == ("nifty1", "warn")


def test_nobody_is_named_while_a_run_has_them_down(layout: Layout) -> None:
    prepare(layout)
    owed.add(layout, run=["1"])
    with changing(layout):
        assert is_changing(layout)
        assert owed.forgotten(layout, [make_instance("1")], ()) == ()
    assert not is_changing(layout)
    assert owed.forgotten(layout, [make_instance("1")], ()) == (make_instance("1"),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 99,
        b"[" * 60000,
        b"[]",
        b'{"format": 2, "run": ["1"]}',
        b'{"format": 1, "run": 7}',
    ],
)
def test_a_damaged_record_owes_nothing(layout: Layout, content: bytes) -> None:
    prepare(layout)
    layout.stopped.write_bytes(content)
    assert owed.read(layout) == Owed()
    owed.add(layout, run=["1"], boot=["2"])
    assert owed.read(layout) == Owed(run=frozenset("1"), boot=frozenset("2"))
    owed.drop(layout, run=["1"])
    owed.drop(layout, boot=["2"])
    assert not layout.stopped.exists()
