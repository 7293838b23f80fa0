"""Where instances can be started to be measured: a host of systemd's, or the tests' machine."""

from __future__ import annotations

from pipeline.host.units import systemd
from pipeline.paths import PROJECT

MACHINE_CODE = PROJECT / "tests" / "support" / "host" / "machine.py"


def missing() -> str | None:
    """Why nothing can be started here as root; None if it can."""
    if systemd.is_booted():
        return None
    if not MACHINE_CODE.is_file():
        return "a systemd as PID 1, or this project's tests"
    from tests.support.host.machine import missing_needs  # noqa: PLC0415 (of the tests)

    return "; ".join(missing_needs()) or None
