"""Times `doit build`: from nothing, with nothing to do, and with one recipe changed.

"nothing (bare doit)" is a doit whose one task has nothing to do: what Python and doit cost alone.
Everything happens in a copy of this checkout below a temporary folder; verified downloads are taken
along, so that no network is measured. A cold build has no cache at all, so musl is compiled, too.
"""

from __future__ import annotations

import resource
import shutil
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import filesystems, results
from pipeline.errors import NiftyError
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.run import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.options import Options

COPIED = ("dodo.py", "pyproject.toml", "pipeline", "recipes")
RECIPE = "recipes/images/nifty.toml"
NOTHING = """\
DOIT_CONFIG = {"backend": "sqlite3", "verbosity": 2}
def task_nothing():
    return {"actions": [], "uptodate": [False]}
"""
COLD = "cold, downloads in the store"
COLD_PROCESSOR = "the same, processor time"
NO_OP = "nothing changed"
BARE = "nothing (bare doit)"
CHANGED = "one image recipe changed"
# Quick ones are repeated so many times in each round: they are shorter than the machine's noise.
REPEATED = 3


class BuildError(NiftyError):
    """A build that cannot be timed because it does not succeed."""


def measure(options: Options) -> dict[str, Any]:
    """Seconds of each kind of build."""
    if not any((PROJECT / "artifacts/store").glob("*")):
        raise BuildError("the store is empty: the network would be measured", hint="doit fetch")
    rows: dict[str, list[float]] = {}
    with filesystems.workplace() as scratch:
        bare, copy = scratch / "bare", scratch / "checkout"
        bare.mkdir()
        (bare / "dodo.py").write_text(NOTHING, "utf-8")
        _copy_project(copy)
        for turn in range(options.rounds):
            say(f"build: from nothing, round {turn + 1} of {options.rounds}")
            before = _processor()
            rows.setdefault(COLD, []).append(_cold(copy))
            rows.setdefault(COLD_PROCESSOR, []).append(_processor() - before)
        quick: dict[str, Callable[[], float]] = {
            NO_OP: lambda: _seconds(copy),
            BARE: lambda: _seconds(bare),
            CHANGED: lambda: _changed(copy),
        }
        _seconds(copy)  # Python's own caches
        say("build: nothing changed, and one recipe changed")
        for _ in range(options.rounds * REPEATED):  # in turn, so that other load hits all alike
            for title, timed in quick.items():
                rows.setdefault(title, []).append(timed())
            _seconds(copy)  # so that the next one finds nothing to do
    head = results.described("build", {"rounds": options.rounds})
    return {**head, "rows": [{"build": title, "seconds": took} for title, took in rows.items()]}


def lines(result: dict[str, Any]) -> list[str]:
    """The table of *result*."""
    spreads = {row["build"]: results.spread(row["seconds"]) for row in result["rows"]}
    runs = {row["build"]: len(row["seconds"]) for row in result["rows"]}
    body = [
        (title, f"{one.middle:.3f}", f"{one.low:.3f}", f"{one.high:.3f}", str(runs[title]))
        for title, one in spreads.items()
    ]
    told = results.table(("doit build, s", "median", "min", "max", "runs"), body)
    ratio = spreads[NO_OP].middle / spreads[BARE].middle
    return [*told, f"with nothing changed it costs {ratio:.2f} times a bare doit"]


def _copy_project(root: Path) -> None:
    root.mkdir()
    for part in COPIED:
        source = PROJECT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / part)
    (root / "artifacts").mkdir()
    shutil.copytree(PROJECT / "artifacts/store", root / "artifacts/store")


def _cold(root: Path) -> float:
    for path in (root / "artifacts").iterdir():
        if path.is_file():
            path.unlink()
        elif path.name != "store":
            shutil.rmtree(path)
    return _seconds(root)


def _processor() -> float:
    """Seconds that all processors worked for programs started here which have ended (getrusage)."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _changed(root: Path) -> float:
    """A recipe with another line in it: the image is packed again, nothing is compiled."""
    with (root / RECIPE).open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    return _seconds(root)


def _seconds(root: Path) -> float:
    """How long doit takes in the folder *root*, from start to exit."""
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "doit"], cwd=root, check=False, capture_output=True, text=True
    )
    took = time.perf_counter() - start
    if ended.returncode != 0:
        raise BuildError(
            f"'doit build' failed in a copy of this checkout:\n{last_lines(ended.stderr)}",
            hint="doit build, which has to succeed here first",
        )
    return took
