"""The archive that image= means: built here, a file, or pulled from elsewhere and verified."""

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
from pipeline.release import rebuilders, remote, stored
from pipeline.release.place import Place, directory, place
from pipeline.settings import is_url
from pipeline.trust import keyring, memory

if TYPE_CHECKING:
    from pipeline.host.state.layout import Layout
    from pipeline.release.remote import Pulled
    from pipeline.settings import Settings
    from pipeline.trust.keyring import Keyring

_MOST_SHOWN = 5  # fingerprints that a person is asked about
_SITE = Path("/etc/nifty/keyring.pgp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """The archive, and what there is to remember of where it is from.

    *may_be_older*, downgrade=yes: whatever was seen before.
    """

    path: Path
    pulled: Pulled | None = None
    first: Keyring | None = None  # that was trusted at first sight
    is_chosen: bool = False
    may_be_older: bool = False

    def remember(self, layout: Layout) -> None:
        """Keep what was seen, below the prefix, whose lock the caller has.

        Raises LayoutError, NiftyError, and OlderError for what another run has overtaken.
        """
        if self.pulled is None or self.pulled.signed is None:
            return
        if not self.may_be_older:
            _refuse_older(layout, self.pulled, is_chosen=self.is_chosen)
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
    where = _meant(settings)
    if where is None:
        _refuse_rebuilders(settings)
        return Obtained(path=places.image_path(settings))
    client = _client(settings, where)
    layout = places.layout_of(settings)
    if where.is_pinned and not settings.keyring:
        _refuse_rebuilders(settings)
        pulled = client.pinned(where)
        say(f"{pulled.title}: sha256 {pulled.path.name}, as pinned")
        return Obtained(path=pulled.path, pulled=pulled)
    ring, first = _ring(settings, layout, where, client)

    def accept(pulled: Pulled) -> None:
        if pulled.signed is not None and settings.fresh is not None:
            name, signed = pulled.place.url, pulled.signed.created
            memory.check_fresh(signed, settings.fresh, client.now, name=name)
        if not settings.downgrade:
            _refuse_older(layout, pulled, is_chosen=where.is_chosen)

    pulled = client.signed(where, ring, accept)
    if pulled.signed is not None:
        when = f"{pulled.signed.created:%Y-%m-%d %H:%M} UTC"
        say(f"{pulled.title}: signed by {pulled.signed.certificate.title}, {when}")
    return Obtained(
        path=pulled.path,
        pulled=pulled,
        first=first,
        is_chosen=where.is_chosen,
        may_be_older=settings.downgrade,
    )


def _client(settings: Settings, where: Place) -> remote.Client | stored.Client:
    now, machine = datetime.now(UTC), os.uname().machine
    if where.is_stored:
        _refuse_rebuilders(settings)
        return stored.Client(cache=_cache(), machine=machine, now=now)
    wanted = None
    if settings.rebuilders:
        ring, others = keyring.load(Path(settings.rebuilders)), rebuilders.read(settings.rebuilt)
        wanted = rebuilders.Wanted(ring=ring, need=settings.need, others=others, now=now)
    return remote.Client(cache=_cache(), machine=machine, now=now, rebuilt=wanted)


def _refuse_rebuilders(settings: Settings) -> None:
    if settings.rebuilders:
        raise UsageError(
            "rebuilders= is asked of a signed release on a web server: there is none here",
            hint="image=https://… without #sha256=, or with keyring= as well",
        )


def publisher(settings: Settings) -> Keyring:
    """Whose release it is to be, as keyring= says: never what lies beside it. Raises NiftyError."""
    if not settings.keyring:
        raise UsageError(
            "signed by whom?",
            hint="keyring=FILE, from the publisher and not from where the release is",
        )
    return keyring.load(Path(settings.keyring))


def release(settings: Settings, *, to_be: str) -> Place:
    """Where from= says that a whole release is *to_be* verified, say: a URL, or a directory.

    Raises NiftyError.
    """
    source = settings.source
    if is_url(source):
        where = place(source, variable="from")
    elif Path(source).is_dir():
        where = directory(Path(source))
    else:
        raise NiftyError(f"{source}: no such directory")
    if where.pin or (where.file and not where.is_stored):
        raise UsageError(f"from={source}: a whole release is {to_be}, not a file of it")
    return where


def _meant(settings: Settings) -> Place | None:
    """What is verified before it is used; None for what was built here, or somebody vouches for.

    Who names a file has chosen it, unless keyring= asks whose it is.
    """
    if settings.image_is_url:
        return place(settings.image)
    path = Path(settings.image)
    if not settings.image_is_path:
        return None
    if path.is_dir():
        return directory(path)
    if settings.keyring and path.is_file():
        return Place(base=f"{path.parent.absolute()}/", file=path.name)
    return None


def _cache() -> Path:
    """As systemd.exec(5) says of CacheDirectory=, and the XDG base directories for users."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/nifty")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nifty"


def _ring(
    settings: Settings, layout: Layout, where: Place, client: remote.Client | stored.Client
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
            hint=f"keyring=FILE of the publisher (or {_SITE}), #sha256=… after the archive's URL "
            "(@sha256:… in a registry), or trust=first",
        )
    ring = client.published_keyring(where)
    if len(ring.certificates) > _MOST_SHOWN:
        raise NiftyError(
            f"{where.base} offers {len(ring.certificates)} certificates: nobody compares so many",
            hint="keyring=FILE of the publisher",
        )
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


def _refuse_older(layout: Layout, pulled: Pulled, *, is_chosen: bool) -> None:
    """Raise OlderError; *is_chosen*: the command line names the file, not the server's list."""
    if pulled.signed is None:
        return
    name = pulled.place.url
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
            hint="name the file, as image=…/NAME.tar.zst, or the digest; or downgrade=yes",
        )
