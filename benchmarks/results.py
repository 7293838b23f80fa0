"""What was measured: its spread, the machine it was measured on, tables, and JSON files."""

from __future__ import annotations

import json
import os
import platform
import statistics
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fit import CRITERION
from pipeline.commands.tables import aligned
from pipeline.errors import NiftyError
from pipeline.run import ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.fit import Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The least, the middle and the most of some samples."""

    low: float
    middle: float
    high: float

    def text(self, digits: int) -> str:
        """`0.52 (0.50-0.61)`."""
        return f"{self.middle:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def spread(samples: Iterable[float], *, factor: float = 1.0) -> Spread:
    """The spread of *samples*, each times *factor*."""
    values = [sample * factor for sample in samples]
    return Spread(low=min(values), middle=statistics.median(values), high=max(values))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "systemd": _systemd(),
    }


def _field(path: Path, name: str) -> str:
    with suppress(OSError):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return ""


def _systemd() -> str | None:
    try:
        return run(["systemctl", "--version"]).stdout.partition("\n")[0]
    except ProgramError:
        return None


def described(part: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The head of every result: which part, when, with what, and on what machine."""
    return {
        "part": part,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "machine": machine(),
    }


def on_what(result: dict[str, Any]) -> str:
    """One line that says on what machine *result* was measured."""
    host = result["machine"]
    memory = host["memory_bytes"] / 1e9
    return (
        f"{host['cpu']}, {host['cores']} cores, {memory:.0f} GB, Linux {host['kernel']}, "
        f"{host['system']}, Python {host['python']}, {host['systemd'] or 'no systemd'}; "
        f"{result['date']}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of aligned columns: the first one to the left, the others to the right."""
    return aligned((head, *rows), to_right=[False, *[True] * (len(head) - 1)])


FIT_HEAD = ("slope, ms each", "fixed, ms", "R²", "cost ratio", "verdict")


def fit_table(line: Fit) -> dict[str, Any]:
    """*line* for JSON."""
    return {
        "slope_ms": line.slope * 1000,
        "intercept_ms": line.intercept * 1000,
        "r2": line.r2,
        "ratio": line.ratio,
        "base_count": line.base,
        "verdict": line.verdict.value,
    }


def fit_lines(rows: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """A table of what `fit_table` made, with a title for each; nothing if there is none."""
    body = [(title, *_fit_cells(row)) for title, row in rows]
    if not body:
        return []
    title = "cost and count: least squares of the medians"
    return ["", title, *table(("", *FIT_HEAD), body), CRITERION]


def _fit_cells(row: dict[str, Any]) -> tuple[str, ...]:
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f} (from {row['base_count']})"
    return (
        f"{row['slope_ms']:.3f}",
        f"{row['intercept_ms']:.1f}",
        f"{row['r2']:.4f}",
        ratio,
        row["verdict"],
    )


def write(folder: Path, name: str, content: bytes) -> Path:
    """Put *content* into *folder*/*name*, whole or not at all; where it is.

    Both belong to the owner of the folder above, whoever runs this: measuring takes root, and the
    next build does not.
    """
    try:
        folder.mkdir(exist_ok=True, parents=True)
    except OSError as error:
        raise NiftyError(f"{folder}: {error.strerror}", hint="--out FOLDER") from error
    path = folder / name
    part = folder / f".{name}.part"
    part.write_bytes(content)
    if os.geteuid() == 0:
        owner = folder.parent.stat()
        for made in (folder, part):
            os.chown(made, owner.st_uid, owner.st_gid)
    part.replace(path)
    return path


def write_json(folder: Path, result: dict[str, Any]) -> Path:
    """*result* as PART.json in *folder*."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    return write(folder, f"{result['part']}.json", text.encode())
