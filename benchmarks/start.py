"""Measures start, memory and stop of every runner beside a bare C loop that boots the same roots.

Needs root. Where PID 1 is systemd it happens on this host, which must have no instances; elsewhere
in a Debian with a real systemd that is booted for it (tests/support/host/machine.py).

start: from the first request to the last SSH banner. stop: until no process is left; the loop's
inits are killed, a runner's shut down. memory: what MemAvailable loses from before the start until
all of them are idle, and the PSS of all processes in their control groups.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import filesystems, inside, results
from benchmarks.compiler import compiled
from benchmarks.fit import fit
from pipeline.host.state.layout import Layout
from pipeline.host.units import systemd
from pipeline.host.units.runners import RUNNERS
from pipeline.paths import PROJECT
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options
    from tests.support.host.machine import Machine

FLOOR = "C loop"
MEASURES = ("start", "available", "pss", "stop")


class Once(Protocol):
    """Starts, weighs and stops *count* instances *way*'s way."""

    def __call__(self, way: str, count: int, /) -> dict[str, float]: ...


def measure(options: Options) -> dict[str, Any]:
    """Samples of every way, by count."""
    samples: dict[tuple[int, str], list[dict[str, float]]] = {}
    with filesystems.workplace() as work, _place(options, compiled("loop", work)) as (where, once):
        for count in options.counts:
            ways = tuple(_possible(count))
            for turn in range(options.rounds if ways else 0):
                say(f"start: {count} instances, round {turn + 1} of {options.rounds}")
                for way in ways:
                    samples.setdefault((count, way), []).append(once(way, count))
    if not samples:
        raise inside.StartError("this host has no room for any of these counts of instances")
    rows = [
        {
            "way": FLOOR if way == inside.LOOP else f"runner={way}",
            "count": count,
            **{key: [one[key] for one in found] for key in MEASURES},
        }
        for (count, way), found in samples.items()
    ]
    settings = {
        "counts": sorted({count for count, _ in samples}),
        "rounds": options.rounds,
        "where": where,
    }
    return {**results.described("start", settings), "rows": rows, "fits": _fits(rows)}


def _possible(count: int) -> Iterator[str]:
    """Runners for which this host has room, and last the loop if there are any; others are told.

    A benchmark changes no settings of the host, and half of its memory is for what else is there.
    """
    is_possible = False
    numbers = int(Path("/proc/sys/kernel/pid_max").read_text("ascii"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for runner, how in RUNNERS.items():
        if how.cost.tasks * count > numbers * 3 // 4:
            why = f"{how.cost.tasks * count} of {numbers} process numbers (kernel.pid_max)"
        elif how.cost.memory * count > memory // 2:
            why = f"{how.cost.memory * count / 1e9:.1f} of {memory / 1e9:.1f} GB of memory"
        else:
            is_possible = True
            yield runner.value
            continue
        say(f"start: {count} instances of runner={runner.value} are left out: they take {why}")
    if is_possible:
        yield inside.LOOP


@contextmanager
def _place(options: Options, loop: Path) -> Iterator[tuple[str, Once]]:
    """Where instances can be started, in words, and what does it there."""
    if systemd.is_booted():
        inside.refuse(Layout(options.prefix))

        # in this process: interrupted, it cleans up by itself
        def here(way: str, count: int) -> dict[str, float]:
            return inside.measure(way, count, options.image, options.prefix, loop)

        yield "on this host", here
        return
    from tests.support.host.machine import Machine  # noqa: PLC0415 (of the tests)

    say("booting a Debian with systemd to start instances in")
    with Machine() as booted:
        yield _machine_told(booted), _machine_runs(booted, options, loop)


def _machine_told(booted: Machine) -> str:
    version = booted.run(["systemctl", "--version"]).stdout.partition("\n")[0]
    return f"in a Debian booted by systemd-nspawn, {version}"


def _machine_runs(booted: Machine, options: Options, loop: Path) -> Once:
    folder = Path("/var/lib/nifty-bench")
    image = folder / options.image.name
    booted.put(image, options.image.read_bytes())
    booted.put(folder / "loop", loop.read_bytes(), mode=0o755)
    program = (sys.executable, "-m", "benchmarks.inside")

    def once(way: str, count: int) -> dict[str, float]:
        told = booted.run(
            [*program, way, str(count), image, "/home", folder / "loop"],
            cwd=PROJECT,
            timeout=1200,
        )
        found: dict[str, float] = json.loads(told.stdout)
        return found

    return once


def _fits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for way in dict.fromkeys(row["way"] for row in rows):
        for what in ("start", "stop"):
            middles = {
                row["count"]: statistics.median(row[what]) for row in rows if row["way"] == way
            }
            line = fit(middles)
            if line is not None:
                found.append({"way": way, "what": what, **results.fit_table(line)})
    return found


def lines(result: dict[str, Any]) -> list[str]:
    """The tables of *result*."""
    told = [f"start, memory, stop, {result['settings']['where']}: median (min-max), times C loop's"]
    for count in result["settings"]["counts"]:
        rows = [row for row in result["rows"] if row["count"] == count]
        floor = next(row for row in rows if row["way"] == FLOOR)
        head = (
            f"{count} instances",
            "start, s",
            "MB each, MemAvailable",
            "MB each, PSS",
            "stop, s",
        )
        body = [(row["way"], *(_cell(row, floor, key) for key in MEASURES)) for row in rows]
        told += ["", *results.table(head, body)]
    fits = ((f"{row['way']}: {row['what']}", row) for row in result["fits"])
    return [*told, *results.fit_lines(fits)]


def _cell(row: dict[str, Any], floor: dict[str, Any], key: str) -> str:
    factor = 1.0 if key in ("start", "stop") else 1 / row["count"] / 1e6
    one = results.spread(row[key], factor=factor)
    text = one.text(2)
    if row is floor:
        return text
    base = results.spread(floor[key], factor=factor).middle
    return f"{text} {one.middle / base:.1f}x" if min(one.middle, base) > 0 else f"{text} -"
