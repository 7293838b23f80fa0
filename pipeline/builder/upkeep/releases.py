"""Which release of a component is the newest: upstream's own list, else Debian's suite."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.builder.recipes.component import Https
from pipeline.builder.sources import debian
from pipeline.errors import ProblemsError
from pipeline.net import https
from pipeline.net.transport import HttpError, Transport

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.builder.recipes.component import Component, Releases

# a directory listing is some kilobytes; more than this is something else
_LARGEST_INDEX = 4 << 20


class ReleasesError(ProblemsError):
    """No place told the newest release; one line with the reason for each place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest release some place knows; `origin` names the place."""

    version: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """A component's pinned version beside the newest one.

    `newest` and `origin` are None when nobody could be asked, with one line per place in `reason`.
    """

    name: str
    pinned: str
    newest: str | None = None
    origin: str | None = None
    reason: str | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether a newer release than the pinned one is known."""
        return self.newest is not None and order(self.newest) > order(self.pinned)


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """*version* as a key to sort by: 1.9 < 1.10, and 1.38.0rc1 < 1.38.0 < 1.38.0.1.

    Numbers compare as numbers; a word after them is taken for a pre-release.
    """
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    ranked = [(2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    return (*ranked, (1, 0, ""))


def newest(component: Component, *, work: Path, transport: Transport | None = None) -> Newest:
    """The newest release of *component*, from its release index, else from its Debian suite.

    Raises ReleasesError with each place's reason when none could tell.
    """
    reasons = []
    if component.releases:
        index = component.releases.index
        try:
            found = _listed(component.releases, transport or Transport())
            return Newest(version=max(found, key=order), origin=index)
        except HttpError as error:
            reasons.append(f"{index}: {error.message}")
    for location in component.location:
        if isinstance(location, Https):
            continue
        where = f"Debian {location.suite}"
        try:
            packaged = debian.versions(location, work=work)
        except debian.AptError as error:
            reasons.append(f"{where}: {error.message}")
            continue
        if packaged:
            return Newest(version=max(map(upstream, packaged), key=order), origin=where)
        reasons.append(f"{where}: has no package {location.package}")
    raise ReleasesError(
        f"{component.name}: the newest release cannot be told:",
        reasons or ["the recipe names neither a release index nor a Debian package"],
    )


def outdated(
    components: Iterable[Component],
    *,
    offline: bool,
    work: Path,
    transport: Transport | None = None,
) -> tuple[Outdated, ...]:
    """A row for each of *components*, in their order; a place that fails is the row's reason."""
    rows = []
    for component in components:
        name, pinned = component.name, component.version
        if offline:
            reason = "offline=yes: nobody was asked"
            rows.append(Outdated(name=name, pinned=pinned, reason=reason))
            continue
        try:
            found = newest(component, work=work, transport=transport)
        except ReleasesError as error:
            rows.append(Outdated(name=name, pinned=pinned, reason="\n".join(error.problems)))
        else:
            rows.append(
                Outdated(name=name, pinned=pinned, newest=found.version, origin=found.origin)
            )
    return tuple(rows)


def upstream(version: str) -> str:
    """Upstream's part of a Debian version: no epoch, no revision, no `+dfsg` (deb-version(7))."""
    without = re.sub(r"^\d+:", "", version)
    without = without.rpartition("-")[0] or without
    return re.sub(r"[+~](dfsg|ds|repack|really|git).*$", "", without)


def _listed(releases: Releases, transport: Transport) -> list[str]:
    page = https.read(releases.index, limit=_LARGEST_INDEX, transport=transport)
    found = re.findall(releases.pattern, page.decode("utf-8", errors="replace"))
    if not found:
        raise HttpError("lists no release that the recipe's pattern finds")
    return found
