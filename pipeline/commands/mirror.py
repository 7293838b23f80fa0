"""`doit mirror`: a release is carried elsewhere, to a drive or a registry of one's own."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.errors import UsageError
from pipeline.net import login, reference
from pipeline.net.reference import SCHEME
from pipeline.program import to_type
from pipeline.progress import say
from pipeline.release import mirror, remote, stored
from pipeline.settings import is_url

if TYPE_CHECKING:
    from pipeline.release.mirror import Rules
    from pipeline.release.place import Place
    from pipeline.settings import Settings
    from pipeline.trust.verify import Signed


def run(settings: Settings) -> None:
    """Have to= hold the release that from= names, verified by keyring=, or leave it as it is."""
    if not settings.source or not settings.to:
        raise UsageError(
            "from where, and to where?",
            hint=to_type("mirror from=URL|FOLDER to=FOLDER|oci://… keyring=FILE"),
        )
    ring = obtain.publisher(settings)
    if is_url(settings.to) and not settings.to.startswith(SCHEME):
        raise UsageError(f"to={settings.to}: a folder, or a registry ({SCHEME}HOST/NAME)")
    where = obtain.release(settings, to_be="carried")
    rules = mirror.Rules(
        ring=ring,
        now=datetime.now(UTC),
        fresh=settings.fresh,
        downgrade=settings.downgrade,
    )
    with tempfile.TemporaryDirectory(prefix="nifty-mirror-") as made:
        signed = _carried(settings, where, rules, Path(made))
    say(f"signed by {signed.certificate.title}, {signed.created:%Y-%m-%d %H:%M} UTC")
    terminal.lines(settings.to)


def _carried(settings: Settings, where: Place, rules: Rules, folder: Path) -> Signed:
    machine = os.uname().machine
    if not where.is_stored:
        if is_url(settings.to):
            raise UsageError(
                f"to={settings.to}: of a release of files a folder is made",
                hint=f"from={SCHEME}…, or an OCI image layout; what was built here: "
                f"{to_type('push')}",
            )
        of_files = remote.Client(cache=folder, machine=machine, now=rules.now)
        return mirror.of_files(of_files, where, Path(settings.to).absolute(), rules)
    client = stored.Client(cache=folder, machine=machine, now=rules.now)
    if not is_url(settings.to):
        return mirror.to_layout(client, where, Path(settings.to).absolute(), rules)
    to = reference.parse(settings.to)
    if to.digest or (to.tag and settings.tag):
        raise UsageError(f"to={settings.to}: name a tag there or in tag=, and no digest")
    tags = (to.tag,) if to.tag else settings.tag
    who = login.find(to.host, to.name)
    return mirror.to_registry(client, where, to, tags, rules, who)
