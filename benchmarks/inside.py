"""Starts, weighs and stops instances once, where PID 1 is systemd; prints JSON. Needs root.

    python -m benchmarks.inside WAY COUNT IMAGE PREFIX LOOP

WAY is a runner's name, or `loop` for the C program at LOOP, which boots the same roots. Nothing may
be deployed on this system beforehand, and nothing is left of it afterwards.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands import deploy, ready, rolling
from pipeline.errors import NiftyError
from pipeline.host.roots import images
from pipeline.host.state import records
from pipeline.host.state.layout import Layout
from pipeline.host.units import banner, cgroup, control, runners, sync, unit_files
from pipeline.host.wanted import Wanted, numbered
from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pipeline.host.state.records import Instance

LOOP = "loop"
UNIT = "nifty-bench-loop.service"
# Seconds until memory is weighed: what ended a moment ago is given back by then.
_SETTLE = 2.0
_POLL = 0.1
_PATIENCE = 120.0


class StartError(NiftyError):
    """Instances that cannot be measured here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Instances that answer: their control *groups*, and what ends them."""

    groups: tuple[Path, ...]
    stop: Callable[[], object]


def measure(way: str, count: int, image: Path, prefix: Path, loop: Path) -> dict[str, float]:
    """Seconds to the last banner and to nothing left, bytes of memory for all of them."""
    layout = Layout(prefix)
    refuse(layout)
    runner = next(iter(runners.RUNNERS)) if way == LOOP else records.Runner(way)
    had = layout.state.exists(), layout.shared.exists()
    try:
        wanted = Wanted(targets=numbered(count), prefix=prefix, runner=runner)
        deploy.deploy(wanted, images.load(image))
        known = records.look(layout)
        chosen = known.instances
        if way == LOOP:
            return _weigh(chosen, partial(_looping, layout=layout, program=loop))
        ready.refuse_start(Settings(prefix=prefix, runner=runner.value), chosen, known)
        sync.settle(layout)
        return _weigh(chosen, _running)
    finally:
        with _undisturbed():
            _clean(layout, had)


def refuse(layout: Layout, directory: Path = unit_files.DIRECTORY) -> None:
    """Raise StartError if instances are deployed here: they are somebody's, and would count."""
    there = [*layout.prefix.glob("nifty*"), *layout.instances.glob("*.json")]
    there += directory.glob("nifty*")
    if there:
        raise StartError(
            f"instances are deployed on this host already ({there[0]}): "
            "starting others beside them would measure both",
            hint="measure on a host without any; or doit undeploy",
        )


def _weigh(
    chosen: Sequence[Instance],
    starting: Callable[[Sequence[Instance]], AbstractContextManager[Running]],
) -> dict[str, float]:
    time.sleep(_SETTLE)
    memory = _available()
    began = time.perf_counter()
    with starting(chosen) as there:
        start = time.perf_counter() - began
        time.sleep(_SETTLE)
        available = memory - _available()
        weight = sum(map(cgroup.pss, there.groups))
        began = time.perf_counter()
        there.stop()
        stop = time.perf_counter() - began
        _check_nothing_runs(there.groups)
    return {"start": start, "available": available, "pss": weight, "stop": stop}


@contextmanager
def _running(chosen: Sequence[Instance]) -> Iterator[Running]:
    """*chosen*, started by systemd. What ends them otherwise is `_clean`."""
    control.start(chosen)
    top = cgroup.hierarchy()
    yield Running(
        groups=tuple(top / unit_files.group_of(one) for one in chosen),
        stop=partial(control.stop, chosen),
    )


@contextmanager
def _looping(chosen: Sequence[Instance], layout: Layout, program: Path) -> Iterator[Running]:
    """*chosen*, started by the C loop in one unit of its own, which ends all it started."""
    lines = (f"{one.base} {one.name} {layout.root(one.name)}\n" for one in chosen)
    with tempfile.NamedTemporaryFile("w", prefix="nifty-bench-") as listing:
        listing.writelines(lines)
        listing.flush()
        words = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait", f"--unit={UNIT}"]
        words += ["--property=TasksMax=infinity", "--property=LimitNOFILE=65536", "--"]
        with subprocess.Popen(
            [*words, program, listing.name, layout.cbin(chosen[0].image)],
            env=dict(CLEAN_ENVIRONMENT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for us: the end of its input ends the loop in order
        ) as loop:
            try:
                _expect(loop, "started")
                _wait_for_banners({one.port for one in chosen})
                yield Running(
                    groups=(cgroup.hierarchy() / "system.slice" / UNIT,),
                    stop=partial(_end, loop),
                )
            finally:
                # the kernel kills a unit's processes with its control group, whatever they do
                run(["systemctl", "stop", UNIT], check=False)


def _expect(loop: subprocess.Popen[bytes], word: str) -> None:
    """The loop's next line; raises StartError with what it says instead."""
    line = loop.stdout.readline().decode() if loop.stdout else ""
    if not line.startswith(word):
        raise StartError(line.strip() or "the C loop ended without a word")


def _end(loop: subprocess.Popen[bytes]) -> None:
    if loop.stdin:
        loop.stdin.close()
    _expect(loop, "stopped")


def _wait_for_banners(pending: set[int]) -> None:
    news = time.monotonic()
    while pending:
        began = time.process_time()
        answering = banner.answering(pending)
        if answering:
            news = time.monotonic()
            pending = pending - answering
        elif time.monotonic() - news > _PATIENCE:
            raise StartError(f"{len(pending)} instances of the C loop do not answer SSH")
        if pending:
            control.rest(began)  # asked as often as `doit start` asks


def _check_nothing_runs(groups: Sequence[Path]) -> None:
    """Raise StartError if one of *groups* is not empty soon: the loop itself is about to exit."""
    deadline = time.monotonic() + _SETTLE
    while left := tuple(_processes(groups)):
        if time.monotonic() > deadline:
            raise StartError(f"{len(left)} processes are left of stopped instances")
        time.sleep(_POLL)


def _available() -> int:
    """Memory that is free for programs, in bytes (proc_meminfo(5))."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise StartError("/proc/meminfo has no MemAvailable")


def _processes(groups: Iterable[Path]) -> Iterator[int]:
    for group in groups:
        yield from cgroup.processes(group)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is done: half cleaned up is what nobody expects."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, lambda number, _frame: came.append(number)) for number in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _clean(layout: Layout, had: tuple[bool, bool]) -> None:
    """Stop and remove every instance, and the folders that were not there before."""
    if not layout.state.is_dir():
        return
    rolling.undeploy(layout, records.read_all(layout))
    for folder, was_there in zip((layout.state, layout.shared), had, strict=True):
        if not was_there:
            shutil.rmtree(folder)


def main(words: Sequence[str]) -> int:
    """Measure once and print."""
    way, count, image, prefix, loop = words
    try:
        found = measure(way, int(count), Path(image), Path(prefix), Path(loop))
    except NiftyError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
