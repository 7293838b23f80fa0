"""Several builds at a time: how many programs run, what is told, and how all of it ends."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pipeline import run as door
from pipeline.builder.components.slots import Slots, StoppedError
from pipeline.builder.components.toolchain import find
from pipeline.errors import NiftyError
from pipeline.run import CLEAN_ENVIRONMENT
from pipeline.together import together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.run import Completed

# A job says when it begins and when it ends, in writes that the kernel puts one after the other.
MAKEFILE = """\
all: a b c d e
a b c d e: ; @printf + >>$(SAID); sleep 0.05; printf -- - >>$(SAID)
"""


def nothing() -> None:
    """Nobody has to be stopped."""


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("count", [1, 2, 3])
def test_makes_share_the_places(tmp_path: Path, count: int) -> None:
    said, make = tmp_path / "said", find("x86_64").make
    (tmp_path / "Makefile").write_text(MAKEFILE)
    with Slots(count) as slots:

        def piece() -> Completed:
            env = {**CLEAN_ENVIRONMENT, **slots.make_flags()}
            return slots.run([make, f"SAID={said}"], env=env, cwd=tmp_path)

        together([piece] * 3, stop=slots.stop)
    text = said.read_text()
    running = [text[:end].count("+") - text[:end].count("-") for end in range(len(text) + 1)]
    assert (text.count("+"), running[-1]) == (15, 0)
    assert max(running) <= count


def test_a_make_takes_all_that_is_free(tmp_path: Path) -> None:
    meet = "touch $@; until [ -e one ] && [ -e two ] && [ -e three ]; do sleep 0.01; done"
    (tmp_path / "Makefile").write_text(f"all: one two three\none two three:\n\t{meet}\n")
    with Slots(3) as slots:
        env = {**CLEAN_ENVIRONMENT, **slots.make_flags()}
        slots.run([find("x86_64").make], env=env, cwd=tmp_path, timeout=30)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "one", "two", "three"}


def test_one_that_fails_lets_the_others_end() -> None:
    done: list[str] = []
    pieces = [partial(fail, NiftyError("one", hint="do this")), partial(done.append, "two")]
    with pytest.raises(NiftyError) as caught:
        together(pieces, stop=nothing)
    assert (str(caught.value), done) == ("one\nhint: do this", ["two"])


def test_several_that_fail_are_told_at_once() -> None:
    pieces = [partial(fail, NiftyError(each, hint="do this")) for each in ("one", "two")]
    with pytest.raises(NiftyError) as caught:
        together(pieces, stop=nothing)
    assert sorted(caught.value.message.splitlines()) == ["one", "two"]
    assert caught.value.hint == "do this"


def test_a_bug_is_not_lost_among_failures() -> None:
    pieces = [partial(fail, NiftyError("one")), partial(fail, ValueError("a bug"))]
    with pytest.raises(ValueError, match="a bug"):
        together(pieces, stop=nothing)


@pytest.fixture
def heeding() -> Iterator[None]:
    """Ctrl-C is heeded here, which a job in a shell's background is born without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding")
def test_an_interrupt_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    told: list[type[Exception]] = []

    def sleeper(slots: Slots) -> None:
        try:
            slots.run(["sh", "-c", f"echo >>{tmp_path}/began; sleep 600"])
        except NiftyError as error:
            told.append(type(error))

    def interrupter() -> None:
        while not ((tmp_path / "began").exists() and door._in_threads):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    with Slots(1) as slots, pytest.raises(KeyboardInterrupt):
        together([partial(sleeper, slots)] * 2 + [interrupter], stop=slots.stop)
    assert set(told) == {door.ProgramError, StoppedError}
    assert (tmp_path / "began").read_text() == "\n"
    assert not door._in_threads


def test_places_lie_in_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / 'a b"c'
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with Slots() as slots:
        assert len(slots.make_flags()["MAKEFLAGS"].split()) == 2
        assert not [*odd.iterdir()]


def test_places_are_as_many_as_processors() -> None:
    with Slots() as slots:
        assert slots.count == len(os.sched_getaffinity(0))
