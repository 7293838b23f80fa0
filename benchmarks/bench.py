"""Measures one part after the other: tables on stdout, JSON and plots in a folder.

Each part is written when it is done, so an interrupted run keeps those before.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import results
from pipeline.progress import say

if TYPE_CHECKING:
    from benchmarks.options import Options


class Part(Protocol):
    """A module that measures one thing."""

    def measure(self, options: Options) -> dict[str, Any]:
        """What was measured, ready for JSON."""

    def lines(self, result: dict[str, Any]) -> list[str]:
        """The same as a table."""


def run(options: Options) -> None:
    """Measure, print and write every part that is chosen."""
    for note in options.notes:
        say(note)
    plots = find_spec("matplotlib") is not None
    if not plots:
        say("no plots: matplotlib is not installed here (pip install -e '.[bench]')")
    with tempfile.TemporaryDirectory(prefix="nifty-bench-") as folder:
        # else matplotlib leaves a cache of fonts in the home directory
        os.environ["MPLCONFIGDIR"] = folder
        for name in options.parts:
            _measure(_part(name), options, plots=plots)


def _measure(part: Part, options: Options, *, plots: bool) -> None:
    result = part.measure(options)
    written = [results.write_json(options.out, result)]
    if plots:
        from benchmarks import plot  # noqa: PLC0415 (in an extra)

        written += plot.write(options.out, result)
    print("\n".join([*part.lines(result), f"measured on {results.on_what(result)}", ""]))
    sys.stdout.flush()
    say("written: " + ", ".join(str(path) for path in written))


def _part(name: str) -> Part:
    """The module benchmarks/NAME.py; only what is measured is imported."""
    part: Part = import_module(f"benchmarks.{name}")
    return part
