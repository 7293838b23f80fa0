"""Which of glibc's `glibc-hwcaps` subdirectories this machine's CPU can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.libraries.root import LibraryRoot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# the x86-64 psABI's levels in the words of /proc/cpuinfo; each needs those before it
_LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}


def levels(flags: Iterable[str]) -> tuple[str, ...]:
    """The subdirectories for a CPU with these *flags* of /proc/cpuinfo, best first (ld.so(8))."""
    present = frozenset(flags)
    found: list[str] = []
    for name, wanted in _LEVELS.items():
        if not wanted <= present:
            break
        found.insert(0, name)
    return tuple(found)


def this_host() -> LibraryRoot:
    """`/` as this machine's own ld.so sees it. Other machines than x86 have no levels here."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    told = (line for line in text.splitlines() if line.startswith("flags"))
    return LibraryRoot(hwcaps=levels(next(told, "").partition(":")[2].split()))
