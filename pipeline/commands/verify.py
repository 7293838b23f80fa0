"""`doit verify`: a release is looked at as a stranger does, check by check, without root."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands import obtain, rebuilding
from pipeline.commands.tables import print_json, print_table
from pipeline.errors import NiftyError, UsageError
from pipeline.program import to_type
from pipeline.release import check, remote, stored
from pipeline.settings import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.release.check import Check
    from pipeline.settings import Settings
    from pipeline.trust.keyring import Keyring


def run(settings: Settings) -> None:
    """Print every check of the release in from=; raise NiftyError if one fails."""
    if not settings.source:
        raise UsageError(
            "verify what?",
            hint=to_type("verify from=FOLDER keyring=FILE, or from=https://…, oci://…"),
        )
    ring = obtain.publisher(settings)
    now = datetime.now(UTC)
    found = list(_checks(settings, ring, now))
    if settings.format == "json":
        print_json([asdict(one) for one in found])
    else:
        rows = [("ok" if one.is_right else "FAIL", one.name, one.found) for one in found]
        print_table(("", "what", "found"), rows)
    wrong = [one.name for one in found if not one.is_right]
    if wrong:
        raise NiftyError(f"{len(wrong)} of {len(found)} checks failed: use nothing of this")


def _checks(settings: Settings, ring: Keyring, now: datetime) -> Iterator[Check]:
    where = obtain.release(settings, to_be="verified")
    machine = os.uname().machine
    with tempfile.TemporaryDirectory(prefix="nifty-verify-") as made:
        folder = Path(made)
        if where.is_stored:
            if settings.rebuild or settings.rebuilders:
                raise UsageError(
                    f"from={settings.source}: a registry has no source: nothing is built again",
                    hint="from=https://…, where the same release is a directory",
                )
            of_registry = stored.Client(cache=folder, machine=machine, now=now)
            yield from of_registry.checked(where, ring, fresh=settings.fresh)
        elif is_url(settings.source):
            of_server = remote.Client(cache=folder, machine=machine, now=now)
            found = of_server.checked(where, ring, folder, fresh=settings.fresh)
            yield from rebuilding.checks(settings, folder, found, now)
        else:
            folder = Path(where.base)
            found = check.directory(folder, ring, now=now, fresh=settings.fresh)
            yield from rebuilding.checks(settings, folder, found, now)
