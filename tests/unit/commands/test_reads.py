"""The state is read a few times for each command, however many instances and batches there are."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import (
    backup,
    deploy,
    doctor,
    restart,
    rolling,
    start,
    status,
    stop,
    undeploy,
    upgrade,
)
from pipeline.errors import NiftyError
from pipeline.host.doctor import limits
from pipeline.host.state import clients, records
from pipeline.host.state.layout import Layout, environment_file, mounts_file
from pipeline.host.units import banner, control, sync, systemd, unit_files, watch
from pipeline.host.units.systemd import State
from pipeline.image import archive
from pipeline.image.rootfs import File
from pipeline.settings import Settings
from tests.support.host_image import key_file, make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pipeline.host.roots.images import Image
    from pipeline.host.state.records import Instance, Known

OLD = make_image()
NEW = make_image([File(path="etc/motd", content=b"welcome again\n")], version="2")
USERS = "private" if os.geteuid() == 0 else "host"
BATCH = 2
COUNTS = (3, 7)


class Reads:
    """How often the state was read *whole*, and how many of it in each of the *parts*."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.whole = 0
        self.parts: list[int] = []
        self._is_within = False
        self._look, self._look_at = records.look, records.look_at
        patch.setattr(records, "look", self._whole)
        patch.setattr(records, "look_at", self._part)

    def clear(self) -> None:
        self.whole = 0
        self.parts.clear()

    def _whole(self, layout: Layout) -> Known:
        self.whole += 1
        self._is_within = True
        try:
            return self._look(layout)
        finally:
            self._is_within = False

    def _part(self, layout: Layout, suffixes: Iterable[str]) -> Known:
        asked = tuple(suffixes)
        if not self._is_within:
            self.parts.append(len(asked))
        return self._look_at(layout, asked)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """A host where systemd takes every order, and nothing stands against anything."""
    for command in (backup, deploy, doctor, restart, start, stop, undeploy, upgrade):
        monkeypatch.setattr(command, "as_root", lambda _what: None)
    monkeypatch.setattr(limits, "refuse", lambda *_: None)
    monkeypatch.setattr(systemd, "require", lambda *_: None)
    monkeypatch.setattr(systemd, "is_booted", lambda *_: False)
    monkeypatch.setattr(systemd, "start", lambda _units: None)
    for name in ("start", "stop", "enable", "retire", "end_unknown"):
        monkeypatch.setattr(control, name, lambda *_, **__: None)
    monkeypatch.setattr(control, "enabled", lambda _some: ())
    monkeypatch.setattr(banner, "answering", lambda *_, **__: frozenset())
    for name in ("support", "furnish"):
        monkeypatch.setattr(sync, name, lambda *_: None)
    for name in ("install", "uninstall"):
        monkeypatch.setattr(unit_files, name, lambda *_: ())

    def states(some: Iterable[Instance]) -> dict[str, State]:
        return {one.name: State.INACTIVE for one in some}

    monkeypatch.setattr(watch, "states", states)
    return Reads(monkeypatch)


def packed(image: Image, path: Path) -> str:
    path.write_bytes(archive.write_zstd(image.archive))
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What is typed for a small fleet of OLD."""
    prefix = tmp_path / "home"
    prefix.mkdir(mode=0o755)
    old = packed(OLD, tmp_path / "old.tar.zst")
    return Settings(
        prefix=prefix,
        image=old,
        users=USERS,
        port=20000,
        authorized_keys=str(key_file(tmp_path)),
        yes=True,
        batch=BATCH,
        given={"image": old},
    )


def dry(command: Callable[[Settings], None]) -> Callable[[Settings], None]:
    return lambda settings: command(replace(settings, dry=True))


def backed_up(settings: Settings) -> None:
    backup.run(replace(settings, to=str(settings.prefix.parent / "saved")))


def looked_at(settings: Settings) -> None:
    with suppress(NiftyError):  # of the host that this runs on
        doctor.run(replace(settings, count=None))


def redeployed(settings: Settings) -> None:
    deploy.run(replace(settings, count=(settings.count or 0) + 2))


@pytest.mark.parametrize(
    ("command", "most"),
    [
        pytest.param(status.run, 1, id="status"),
        pytest.param(stop.run, 1, id="stop"),
        pytest.param(looked_at, 1, id="doctor"),
        pytest.param(backed_up, 1, id="backup"),
        pytest.param(dry(deploy.run), 1, id="deploy dry=yes"),
        pytest.param(dry(upgrade.run), 1, id="upgrade dry=yes"),
        pytest.param(dry(undeploy.run), 1, id="undeploy dry=yes"),
        # before anything is done, and under the lock
        pytest.param(redeployed, 2, id="deploy"),
        pytest.param(start.run, 2, id="start"),
        pytest.param(restart.run, 2, id="restart"),
        # once more where the lock was free in between
        pytest.param(undeploy.run, 3, id="undeploy"),
    ],
)
@pytest.mark.parametrize("count", COUNTS)
def test_whole_reads(
    settings: Settings, reads: Reads, command: Callable[[Settings], None], most: int, count: int
) -> None:
    deploy.run(replace(settings, count=count))
    reads.clear()
    command(replace(settings, count=count))
    assert reads.whole == most


@pytest.mark.parametrize("count", COUNTS)
def test_an_upgrade_reads_a_batch_for_each_batch(
    settings: Settings, reads: Reads, tmp_path: Path, count: int
) -> None:
    deploy.run(replace(settings, count=count))
    files = [environment_file(settings.prefix, str(number)) for number in range(1, count + 1)]
    before = [file.read_text() for file in files]
    new = packed(NEW, tmp_path / "new.tar.zst")
    reads.clear()
    upgrade.run(replace(settings, image=new, given={"image": new}))
    # what is there, what is there when its turn has come, and what is left to be tidied
    assert reads.whole == 3
    # once to move it, once for what its unit reads
    assert max(reads.parts) == BATCH
    assert sum(reads.parts) == 2 * count
    assert {one.image for one in records.read_all(Layout(settings.prefix))} == {NEW.digest}
    assert [text.replace(OLD.digest, NEW.digest) for text in before] == [
        file.read_text() for file in files
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="runner=service: users of their own, so root")
@pytest.mark.parametrize("count", COUNTS)
def test_another_runner_reads_a_batch_for_each_batch(
    settings: Settings, reads: Reads, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "_refuse", lambda *_: None)
    deploy.run(replace(settings, count=count))
    reads.clear()
    upgrade.run(replace(settings, runner="service", given={"runner": "service"}))
    assert reads.whole == 3
    assert reads.parts == [BATCH] * (count // BATCH) + [1] * (count % BATCH)
    for number in range(1, count + 1):
        assert mounts_file(settings.prefix, str(number)).is_file()
    upgrade.run(replace(settings, runner="nspawn", given={"runner": "nspawn"}))
    assert not list(settings.prefix.glob(".nifty/units/*.fstab"))


@pytest.mark.skipif(os.geteuid() != 0, reason="runner=service: users of their own, so root")
def test_who_is_removed_meanwhile_is_not_known_after_a_change_of_runner(
    settings: Settings, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "_refuse", lambda *_: None)
    deploy.run(replace(settings, count=3))
    layout = Layout(settings.prefix)
    moved: list[list[str]] = []
    change = rolling._change_batch

    def changed(where: Layout, part: Sequence[Instance], runner: records.Runner) -> None:
        change(where, part, runner)
        moved.append([one.suffix for one in part])
        if len(moved) == 1:
            rolling.undeploy(where, part[:1])

    monkeypatch.setattr(rolling, "_change_batch", changed)
    asked = replace(settings, runner="service", given={"runner": "service"})
    known = upgrade._change_runner(asked, records.look(layout), None)
    assert moved == [["1", "2"], ["3"]]
    assert known == records.look(layout)
    assert [(one.suffix, one.runner) for one in known.instances] == [
        ("2", records.Runner.SERVICE),
        ("3", records.Runner.SERVICE),
    ]


def test_a_batch_leaves_what_others_have_alone(
    settings: Settings, reads: Reads, tmp_path: Path
) -> None:
    deploy.run(replace(settings, count=3))
    other = environment_file(settings.prefix, "3")
    other.write_text("# somebody looks at this\n")
    layout = Layout(settings.prefix)
    sync.follow(layout, ["1", "2"])
    assert other.read_text() == "# somebody looks at this\n"
    sync.follow(layout, ["3"])
    assert "NIFTY_" in other.read_text()


def test_an_upgrade_that_ends_early_tidies(
    settings: Settings, reads: Reads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy.run(replace(settings, count=3))
    layout = Layout(settings.prefix)
    new = packed(NEW, tmp_path / "new.tar.zst")
    moved: list[str] = []

    def interrupted(_layout: Layout, suffixes: Iterable[str], **_: object) -> None:
        moved.extend(suffixes)
        raise KeyboardInterrupt

    monkeypatch.setattr(sync, "follow", interrupted)
    layout.ssh_config.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        upgrade.run(replace(settings, image=new, given={"image": new}))
    assert moved == ["1", "2"]
    known = records.read_all(layout)
    assert [one.image for one in known] == [NEW.digest, NEW.digest, OLD.digest]
    assert clients.are_current(layout, known)
    assert NEW.digest in environment_file(settings.prefix, "1").read_text()
