"""Which runners there are: the only place that knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.host import state
from pipeline.host.nspawn import Nspawn
from pipeline.host.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.host.runner import Runner

RUNNERS: Mapping[state.Runner, Runner] = {
    state.Runner.NSPAWN: Nspawn(),
    state.Runner.SERVICE: Service(),
}
