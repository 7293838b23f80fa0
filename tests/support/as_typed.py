"""What commands do with an image, for tests that need nothing else of the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands import deploy
from pipeline.host.roots import access, needs
from pipeline.host.roots import upgrade as upgrading
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, locked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.host.roots.actions import Plan
    from pipeline.host.roots.images import Image
    from pipeline.host.roots.upgrade import UpgradeReport
    from pipeline.host.wanted import Wanted


def upgrade(prefix: Path, suffixes: Sequence[str] | None, image: Image | None) -> UpgradeReport:
    """Move *suffixes* (None: all there are) as `doit upgrade` does: in a batch, and then tidy."""
    layout = Layout(prefix)
    there = tuple(one.suffix for one in records.read_all(layout))
    try:
        return upgrading.upgrade(layout, there if suffixes is None else suffixes, image)
    finally:
        with locked(layout):
            upgrading.tidy(layout, records.look(layout))


def planned(wanted: Wanted, image: Image) -> Plan:
    """What `dry=yes` shows of deploying *wanted*."""
    taken = needs.of_image(image, wanted, access.keys_for(wanted))
    return deploy.preview(wanted, image, records.look(Layout(wanted.prefix)), taken)
