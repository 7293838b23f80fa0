"""Which runners there are: the only place that knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.host.state import records
from pipeline.host.units.nspawn import Nspawn
from pipeline.host.units.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.host.units.runner import Runner

RUNNERS: Mapping[records.Runner, Runner] = {
    records.Runner.NSPAWN: Nspawn(),
    records.Runner.SERVICE: Service(),
}


def dearest(kinds: Iterable[records.Runner]) -> records.Runner:
    """Of *kinds*, at least one, that which takes most of a host."""
    return max(kinds, key=lambda kind: RUNNERS[kind].cost.memory)
