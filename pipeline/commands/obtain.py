"""The archive that image= means: built here, a file, or pulled from a web server and verified."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files, terminal
from pipeline.commands import places
from pipeline.errors import NiftyError, UsageError, reason
from pipeline.host.state import layout as layouts
from pipeline.progress import say
from pipeline.release import remote
from pipeline.trust import keyring, memory

if TYPE_CHECKING:
    from pipeline.host.state.layout import Layout
    from pipeline.release.remote import Place, Pulled
    from pipeline.settings import Settings
    from pipeline.trust.keyring import Keyring

_SITE = Path("/etc/nifty/keyring.pgp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """The archive, and what there is to remember of where it is from."""

    path: Path
    pulled: Pulled | None = None
    first: Keyring | None = None  # that was trusted at first sight

    def remember(self, layout: Layout) -> None:
        """Keep what was seen, below the prefix. Raises LayoutError, NiftyError."""
        if self.pulled is None or self.pulled.signed is None:
            return
        layouts.prepare(layout)
        folder = layout.trusted
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o755)
            layouts.check_owner(folder)
            base = self.pulled.place.base
            if self.first is not None:
                files.put(memory.place(folder, base, "").with_suffix(".pgp"), self.first.binary)
            image = self.pulled.named.image if self.pulled.named else ""
            # of the source as a whole, whatever image of it: an older release is an older release
            whole = memory.Seen(version="", signed=self.pulled.signed.created)
            memory.remember(memory.place(folder, base, ""), base, image, whole)
            if (seen := self.pulled.seen) is not None:
                memory.remember(memory.place(folder, base, image), base, image, seen)
        except OSError as error:
            raise NiftyError(reason(error, folder)) from error


def image(settings: Settings) -> Obtained:
    """What the command line means. Raises NiftyError for what is not there or not trusted."""
    if not settings.image_is_url:
        return Obtained(path=places.image_path(settings))
    where = remote.place(settings.image)
    client = remote.Client(cache=_cache(), machine=os.uname().machine, now=datetime.now(UTC))
    layout = places.layout_of(settings)
    if where.pin and not settings.keyring:
        pulled = client.pinned(where)
        say(f"{where.file}: sha256 {where.pin}, as pinned")
        return Obtained(path=pulled.path, pulled=pulled)
    ring, first = _ring(settings, layout, where, client)

    def accept(pulled: Pulled) -> None:
        _refuse_older(settings, layout, pulled, client.now, is_chosen=bool(where.file))

    pulled = client.signed(where, ring, accept)
    if pulled.signed is not None:
        when = f"{pulled.signed.created:%Y-%m-%d %H:%M} UTC"
        say(f"{pulled.place.file}: signed by {pulled.signed.certificate.title}, {when}")
    return Obtained(path=pulled.path, pulled=pulled, first=first)


def _cache() -> Path:
    """As systemd.exec(5) says of CacheDirectory=, and the XDG base directories for users."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/nifty")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nifty"


def _ring(
    settings: Settings, layout: Layout, where: Place, client: remote.Client
) -> tuple[Keyring, Keyring | None]:
    """Who is trusted for *where*, and the same again if that was decided just now."""
    if settings.keyring:
        return keyring.load(Path(settings.keyring)), None
    if _SITE.exists():
        return keyring.load(_SITE), None
    kept = memory.place(layout.trusted, where.base, "").with_suffix(".pgp")
    if kept.exists():
        return keyring.load(kept), None
    if settings.trust != "first":
        raise UsageError(
            f"{where.base}: signed by whom?",
            hint=f"keyring=FILE of the publisher (or {_SITE}), #sha256=… after the archive's URL, "
            "or trust=first",
        )
    ring = client.published_keyring(where)
    for one in ring.certificates:
        say(f"{where.base} says it is {one.title}")
    if not settings.yes:
        answer = terminal.ask("trust this key for this source from now on? [y/N] ")
        if answer is None:
            raise UsageError(
                "trust=first asks on a terminal, and there is none",
                hint="yes=yes, after the fingerprint was compared; better: keyring=FILE",
            )
        if answer.strip().lower() not in ("y", "yes"):
            raise NiftyError("not trusted, nothing was done")
    return ring, ring


def _refuse_older(
    settings: Settings, layout: Layout, pulled: Pulled, now: datetime, *, is_chosen: bool
) -> None:
    """Raise OlderError; *is_chosen*: the command line names the file, not the server's list."""
    if pulled.signed is None:
        return
    name = pulled.place.url
    if settings.fresh is not None:
        memory.check_fresh(pulled.signed.created, settings.fresh, now, name=name)
    if settings.downgrade:
        return
    image = pulled.named.image if pulled.named else ""
    if pulled.seen is not None:
        path = memory.place(layout.trusted, pulled.place.base, image)
        memory.check(memory.recall(path), pulled.seen, name=name)
    source = memory.place(layout.trusted, pulled.place.base, "")
    whole = memory.Seen(version="", signed=pulled.signed.created)
    memory.check(memory.recall(source), whole, name=name)
    before = memory.recall_image(source)
    if not is_chosen and before not in (None, image):
        raise memory.OlderError(
            f"{name}: the image there was {before}, and is {image} now",
            hint="name the file, as image=…/NAME.tar.zst; or downgrade=yes",
        )
