"""Draws what was measured, as PNG and SVG. Needs matplotlib (`pip install -e '.[bench]'`)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt
from matplotlib import ticker

from benchmarks import peers, results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMATS = ("png", "svg")
# Colours that stay apart for the colour-blind (Okabe and Ito, 2008), and a mark each for print.
_STYLE = {
    peers.NIFTY: ("#D55E00", "o"),
    peers.UPGRADE: ("#F0E442", "D"),
    peers.C_CHOWN: ("#000000", "v"),
    peers.C_FSUID: ("#7F7F7F", "^"),
    peers.COPY: ("#0072B2", "s"),
    peers.EXTRACT: ("#56B4E9", "D"),
    peers.SNAPSHOT: ("#CC79A7", "P"),
    peers.ARTICLE: ("#009E73", "X"),
}
_WAYS = ("#D55E00", "#0072B2", "#7F7F7F")


def write(folder: Path, result: dict[str, Any]) -> list[Path]:
    """The plot of *result* in *folder*, in each format; none for a part that has none."""
    drawers = {"deploy": _deploy, "start": _start}
    if result["part"] not in drawers:
        return []
    with plt.rc_context({"font.size": 11, "svg.hashsalt": "nifty", "axes.axisbelow": True}):
        figure = drawers[result["part"]](result)
        figure.text(0.01, 0.005, results.on_what(result), fontsize=7, color="#555555")
        paths = []
        for kind in FORMATS:
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, dpi=130)
            paths.append(results.write(folder, f"{result['part']}.{kind}", stream.getvalue()))
        plt.close(figure)
    return paths


def _deploy(result: dict[str, Any]) -> Any:
    kinds = result["settings"]["on"]
    columns = min(2, len(kinds))
    lines = -(-len(kinds) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(5.6 * columns, 3.8 * lines + 1.1),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axis, kind in zip(axes.flat, kinds, strict=False):
        rows = [row for row in result["rows"] if row["filesystem"] == kind]
        for peer in peers.PEERS:
            _curve(axis, peer, [row for row in rows if row["peer"] == peer])
        axis.set(xscale="log", yscale="log", title=kind)
        axis.set_xticks(result["settings"]["counts"], _thousands(result["settings"]["counts"]))
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(visible=True, color="#DDDDDD")
    for spare in axes.flat[len(kinds) :]:
        spare.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("instances")
    for axis in axes[:, 0]:
        axis.set_ylabel("ms for each instance")
    known: dict[str, Any] = {}
    for axis in axes.flat:
        known |= {
            label: line for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    figure.suptitle("Deploying: median, least and most of all rounds")
    room = 1.0 / (3.8 * lines + 1.1)
    figure.legend(
        known.values(),
        known,
        loc="lower center",
        ncol=3,
        fontsize=9,
        bbox_to_anchor=(0.5, 0.2 * room),
    )
    figure.tight_layout(rect=(0, 0.95 * room, 1, 1))
    return figure


def _curve(axis: Any, peer: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    each = [results.spread(row["seconds"], factor=1000 / row["count"]) for row in rows]
    scaled = any(row["measured"] < row["count"] for row in rows)
    colour, mark = _STYLE[peer]
    axis.errorbar(
        [row["count"] for row in rows],
        [one.middle for one in each],
        yerr=([one.middle - one.low for one in each], [one.high - one.middle for one in each]),
        label=f"{peer} (scaled)" if scaled else peer,
        color=colour,
        marker=mark,
        linewidth=2.2 if peer == peers.NIFTY else 1.4,
        linestyle="--" if scaled else "-",
        capsize=3,
    )


def _thousands(counts: list[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _start(result: dict[str, Any]) -> Any:
    ways = {row["way"] for row in result["rows"]}
    at: dict[int, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        at.setdefault(row["count"], []).append(row)
    # the host has room for every way at small counts
    count = max(count for count, rows in at.items() if len(rows) == len(ways))
    rows = at[count]
    shown = (
        ("start to the last banner, s", "start", 1.0),
        ("memory each, MemAvailable, MB", "available", 1 / count / 1e6),
        ("memory each, PSS, MB", "pss", 1 / count / 1e6),
        ("stop to nothing left, s", "stop", 1.0),
    )
    figure, axes = plt.subplots(1, len(shown), figsize=(12.5, 4.4))
    for axis, (title, key, factor) in zip(axes, shown, strict=True):
        floor = results.spread(rows[-1][key], factor=factor).middle
        each = [results.spread(row[key], factor=factor) for row in rows]
        bars = axis.bar(
            [row["way"].removeprefix("runner=") for row in rows],
            [one.middle for one in each],
            yerr=([one.middle - one.low for one in each], [one.high - one.middle for one in each]),
            color=_WAYS[-len(rows) :],
            capsize=4,
        )
        axis.bar_label(bars, list(_bar_texts([one.middle for one in each], floor)), padding=3)
        axis.margins(y=0.22)
        axis.set_title(title, fontsize=11)
        axis.grid(visible=True, axis="y", color="#DDDDDD")
    figure.suptitle(f"{count:,} instances: median, least and most; in brackets: times the C loop's")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return figure


def _bar_texts(middles: list[float], floor: float) -> Iterator[str]:
    for middle in middles:
        times = f"\n({middle / floor:.1f}x)" if min(middle, floor) > 0 else ""
        yield f"{middle:.2f}{times}"
