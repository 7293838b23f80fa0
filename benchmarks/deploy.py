"""Measures deploying beside a C program, cp, tar, snapshots and the article's loop.

Needs root: every measurement gets a file system of its own, freshly made (tmpfs, or on a loop
device), and peers take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import filesystems, peers, results
from benchmarks.fit import fit
from pipeline.progress import say

if TYPE_CHECKING:
    from benchmarks.options import Options


def measure(options: Options) -> dict[str, Any]:
    """Seconds of every peer, by file system and count."""
    filesystems.check_room(options.counts[-1], options.on)
    rows: dict[tuple[str, str, int], list[float]] = {}
    with filesystems.workplace() as work:
        filesystems.keep_mounts_private()
        made_of = peers.material(options.image, work)
        for kind in options.on:
            for count in options.counts:
                for turn in range(options.rounds):
                    say(f"deploy: {kind}, {count} instances, round {turn + 1} of {options.rounds}")
                    for peer in peers.peers_on(kind, count):
                        with filesystems.fresh(kind, work) as prefix:
                            taken = peers.seconds(peer, made_of, prefix, count)
                        rows.setdefault((kind, peer, count), []).append(taken)
    found = [
        {
            "filesystem": kind,
            "peer": peer,
            "count": count,
            "measured": peers.measured_count(peer, count),
            "seconds": seconds,
        }
        for (kind, peer, count), seconds in rows.items()
    ]
    settings = {
        "image": made_of.image.digest,
        "counts": options.counts,
        "on": options.on,
        "rounds": options.rounds,
    }
    return {**results.described("deploy", settings), "rows": found, "fits": _fits(found)}


def _fits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each way and file system; what was scaled from one count has none."""
    points: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["peer"] not in peers.SCALED:
            middles = points.setdefault((row["filesystem"], row["peer"]), {})
            middles[row["count"]] = statistics.median(row["seconds"])
    found = []
    for (kind, peer), middles in points.items():
        line = fit(middles)
        if line is not None:
            found.append({"filesystem": kind, "peer": peer, **results.fit_table(line)})
    return found


def lines(result: dict[str, Any]) -> list[str]:
    """The tables of *result*."""
    counts = result["settings"]["counts"]
    told = ["deploying, ms for each instance: median (min-max)"]
    for kind in result["settings"]["on"]:
        rows = [row for row in result["rows"] if row["filesystem"] == kind]
        cells: dict[str, dict[int, str]] = {}
        for row in rows:
            each = results.spread(row["seconds"], factor=1000 / row["count"])
            mark = "*" if row["measured"] < row["count"] else ""
            cells.setdefault(row["peer"], {})[row["count"]] = each.text(3) + mark
        body = [
            (peer, *(by_count.get(count, "-") for count in counts))
            for peer, by_count in cells.items()
        ]
        told += ["", *results.table((kind, *map(str, counts)), body), *_ratios(rows)]
    fits = ((f"{row['filesystem']}: {row['peer']}", row) for row in result["fits"])
    return [*told, "", *_notes(), *results.fit_lines(fits)]


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    count = max(row["count"] for row in rows)
    middle = {
        row["peer"]: statistics.median(row["seconds"]) for row in rows if row["count"] == count
    }
    floor = min(middle[peers.C_CHOWN], middle[peers.C_FSUID])
    article = middle[peers.ARTICLE] / middle[peers.NIFTY]
    ours = middle[peers.NIFTY] / floor
    told = f"at {count}: doit deploy takes {ours:.2f} times the faster C program's time"
    return [f"{told}; the article's loop {article:.1f} times that of doit deploy"]


def _notes() -> list[str]:
    scaled = (f"{peer}: {most} made and scaled" for peer, most in peers.SCALED.items())
    capped = (f"{peer}: not above {most}" for peer, most in peers.MOST.items())
    return [f"* {'; '.join(scaled)}", f"- not measured ({'; '.join(capped)})"]
