"""Times `doit build`: doing nothing, assembling alone, and (--cold) from sources to image.

    .venv/bin/python benchmarks/build.py [--runs 10] [--cold 1] [--json FILE]

"nothing" is a bare `doit` whose one task has nothing to do: what Python and doit cost alone.
Everything happens in a copy of this checkout below a temporary folder; downloads are taken along,
so that no network is measured. A cold build has no cache at all, so musl is compiled, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parent.parent
PARTS = ("dodo.py", "pyproject.toml", "pipeline", "recipes")
NOTHING = """\
DOIT_CONFIG = {"backend": "sqlite3", "verbosity": 2}
def task_nothing():
    return {"actions": [], "uptodate": [False]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="of the quick ones (default: 10)")
    parser.add_argument("--cold", type=int, default=0, help="cold builds (default: none)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nifty-benchmark-") as name:
        rows = measure(Path(name), runs=given.runs, cold=given.cold)
    print_table(rows)
    if given.json:
        table = {"python": platform.python_version(), "processors": os.cpu_count(), "seconds": rows}
        given.json.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def measure(scratch: Path, *, runs: int, cold: int) -> dict[str, list[float]]:
    """Seconds of each run, by what was timed."""
    bare = scratch / "bare"
    bare.mkdir()
    (bare / "dodo.py").write_text(NOTHING, "utf-8")
    copy = scratch / "checkout"
    copy_project(copy)
    rows: dict[str, list[float]] = {}
    for _ in range(cold):
        shutil.rmtree(copy / "artifacts" / "cache", ignore_errors=True)
        forget(copy)
        rows.setdefault("cold build", []).append(seconds(copy))
    if not cold:
        shutil.copytree(PROJECT / "artifacts/cache/compiled", copy / "artifacts/cache/compiled")
    seconds(copy)  # whatever is missing, and Python's own caches
    quick: dict[str, Callable[[], float]] = {
        "nothing (bare doit)": lambda: seconds(bare),
        "unchanged build": lambda: seconds(copy),
        "assemble and pack": lambda: assemble(copy),
    }
    for _ in range(runs):  # in turn, so that other load on the machine hits all alike
        for title, timed in quick.items():
            rows.setdefault(title, []).append(timed())
    return rows


def copy_project(root: Path) -> None:
    root.mkdir()
    for part in PARTS:
        source = PROJECT / part
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, root / part)
    (root / "artifacts").mkdir()
    shutil.copytree(PROJECT / "artifacts" / "store", root / "artifacts" / "store")


def forget(root: Path) -> None:
    for path in (root / "artifacts").glob("state-*"):
        shutil.rmtree(path)


def assemble(root: Path) -> float:
    for path in (root / "artifacts").glob("*.tar.*"):
        path.unlink()
    return seconds(root)


def seconds(root: Path) -> float:
    """How long doit takes in the folder *root*, from start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "doit"], cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def print_table(rows: dict[str, list[float]]) -> None:
    print(f"{'seconds':22}{'median':>9}{'min':>9}{'max':>9}{'runs':>6}")
    for title, times in rows.items():
        middle = statistics.median(times)
        print(f"{title:22}{middle:9.3f}{min(times):9.3f}{max(times):9.3f}{len(times):6}")
    unchanged, nothing = (
        statistics.median(rows[title]) for title in ("unchanged build", "nothing (bare doit)")
    )
    print(f"an unchanged build costs {unchanged / nothing:.2f} times a bare doit")


if __name__ == "__main__":
    main()
