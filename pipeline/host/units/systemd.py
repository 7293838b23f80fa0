"""The only door to systemctl and journalctl: many units in a bounded number of calls."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import distribution
from pipeline.errors import NiftyError
from pipeline.paths import beneath
from pipeline.program import to_type
from pipeline.run import ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# One argument list may have 2 MiB and its single words 128 KiB (execve(2)); a thousand names such
# as nifty@1000.service are 19 KB.
BATCH_BYTES = 64 * 1024


_OPTIONS = {"start": ("--no-block",), "stop": ("--no-block",), "kill": ("--signal=KILL",)}


class SystemdError(NiftyError):
    """systemd is not there, or refused something."""


class State(Enum):
    """ActiveState of a unit (org.freedesktop.systemd1(5)); one that is not loaded is inactive."""

    ACTIVE = "active"
    RELOADING = "reloading"
    INACTIVE = "inactive"
    FAILED = "failed"
    ACTIVATING = "activating"
    DEACTIVATING = "deactivating"
    MAINTENANCE = "maintenance"
    REFRESHING = "refreshing"

    @property
    def is_at_rest(self) -> bool:
        """Nothing runs and nothing will by itself."""
        return self in (State.INACTIVE, State.FAILED)


def is_booted(root: Path = Path("/")) -> bool:
    """Whether systemd is PID 1 of the host whose file tree is *root* (sd_booted(3))."""
    return beneath(root, "run/systemd/system").is_dir()


def require(root: Path = Path("/")) -> None:
    """Raise SystemdError unless `is_booted`."""
    if not is_booted(root):
        raise SystemdError(
            "this host was not booted by systemd, which is what starts instances",
            hint=f"{distribution.boot_here()}; {to_type('doctor')} tells what else is missing here",
        )


def start(units: Iterable[str]) -> None:
    """Ask for *units* to be started, and do not wait for them."""
    _each_batch("start", units)


def stop(units: Iterable[str]) -> None:
    """Ask for *units* to be stopped, and do not wait for them."""
    _each_batch("stop", units)


def end(units: Iterable[str]) -> None:
    """Stop *units*, and wait until they have stopped."""
    for batch in batches(units):
        _systemctl("stop", "--", *batch)


def kill(units: Iterable[str]) -> None:
    """Send SIGKILL to every process of *units*, those that their KillMode= would spare, too."""
    _each_batch("kill", units)


def restart(units: Iterable[str]) -> None:
    """Stop and start *units*, and wait until they have started."""
    _each_batch("restart", units)


def forget_failures(units: Iterable[str]) -> None:
    """Let failed *units* be started again, whatever their start limit says."""
    _each_batch("reset-failed", units)


def enable(units: Iterable[str]) -> None:
    """Start *units* with the host from now on."""
    _each_batch("enable", units)


def disable(units: Iterable[str]) -> None:
    """Do not start *units* with the host any more."""
    _each_batch("disable", units)


def reload() -> None:
    """Make systemd read its unit files again."""
    _systemctl("daemon-reload")


def needs_reload(patterns: Sequence[str]) -> bool:
    """Whether a loaded unit that matches one of *patterns* has a file newer than what was read."""
    return "yes" in _systemctl("show", "--property=NeedDaemonReload", "--value", *patterns).split()


def states(patterns: Sequence[str]) -> Mapping[str, State]:
    """The state of every loaded unit whose name matches one of *patterns* (glob(7)), in one call.

    A unit that is missing here is inactive.
    """
    told = _systemctl("list-units", "--all", "--full", "--plain", "--no-legend", *patterns)
    rows = (line.split(None, 4) for line in told.splitlines())
    return {row[0]: State(row[2]) for row in rows if len(row) >= 4}


def journal(unit: str, lines: int, *, since: float) -> tuple[str, ...]:
    """Up to *lines* different lines by *unit*, or else by systemd about it; the last ones.

    *since* is in seconds since 1970. Empty if that cannot be told.
    """
    # What the unit's own processes said tells why; else what systemd saw, before it tried again.
    return _journal(f"_SYSTEMD_UNIT={unit}", lines, since) or _journal(
        f"--unit={unit}", lines, since
    )


def _journal(match: str, lines: int, since: float) -> tuple[str, ...]:
    try:
        told = run(
            [
                *("journalctl", "--output=cat", "--no-pager", "--quiet"),
                *(f"--lines={lines * 20}", f"--since=@{since:.6f}", match),
            ],
            timeout=20,
        )
    except ProgramError:
        return ()  # it only explains another error, which must not be lost for it
    said = (line for line in told.stdout.splitlines() if "Scheduled restart job" not in line)
    return tuple(dict.fromkeys(said))[-lines:]


def batches(words: Iterable[str], most: int = BATCH_BYTES) -> Iterator[tuple[str, ...]]:
    """*words* in order, in runs of at most *most* bytes with one byte after each word."""
    batch: list[str] = []
    size = 0
    for word in words:
        length = len(word.encode()) + 1
        if batch and size + length > most:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(word)
        size += length
    if batch:
        yield tuple(batch)


def _each_batch(verb: str, units: Iterable[str]) -> None:
    options = _OPTIONS.get(verb, ("--quiet",))
    for batch in batches(units):
        _systemctl(verb, *options, "--", *batch)


def _systemctl(*words: str) -> str:
    require()
    try:
        return run(["systemctl", "--no-pager", "--no-ask-password", *words], timeout=300).stdout
    except ProgramError as error:
        raise SystemdError(
            error.message, hint=to_type("doctor tells what this host lacks")
        ) from error
