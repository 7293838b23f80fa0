"""Gets a pinned file: from the store, else from the recipe's locations in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.builder.recipes.component import Https
from pipeline.builder.sources import debian, signature
from pipeline.builder.sources.store import MismatchError, mismatch
from pipeline.errors import ProblemsError, counted
from pipeline.net import https
from pipeline.net.transport import HttpError, Transport
from pipeline.progress import bar, say

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.builder.recipes.component import Component, Location, Source
    from pipeline.builder.recipes.image import Package
    from pipeline.builder.sources.store import Draft, Store

    Fetched = Component | Package

_CHUNK = 1 << 20


class FetchError(ProblemsError):
    """A file that no location gave, with each one's reason, or that the store alone lacks."""


def require(components: Iterable[Fetched], store: Store) -> None:
    """Returns if *store* holds the files of all *components*, without asking any other place.

    Raises FetchError that names all missing ones: what `offline=yes` needs to say at once.
    """
    named = {component.source.sha256: component for component in components}
    missing = store.missing(component.source for component in named.values())
    if missing:
        raise FetchError(
            f"the store {store.root} lacks {counted(len(missing), 'file')}, "
            "and offline=yes forbids to fetch:",
            (
                f"{source.file} of {named[source.sha256].name}: {source.size} bytes, "
                f"sha256 {source.sha256}"
                for source in missing
            ),
            hint=f"run without offline=yes once, or put each there as <sha256>-<file>, "
            f"such as {store.path(missing[0].sha256, missing[0].file)}",
        )


def fetch(
    component: Fetched,
    folder: Path,
    store: Store,
    *,
    offline: bool,
    work: Path,
    transport: Transport | None = None,
) -> Path:
    """The path in *store* of *component*'s file, which has the pinned size, sha256 and signature.

    *folder* is the recipe's, *work* a folder for apt's lists. With *offline* the store alone is
    used. Raises FetchError with each location's reason, SignatureError as soon as some location
    gives the pinned bytes and their signature does not hold (elsewhere they would be the same).
    """
    source = component.source
    stored = store.get(source)
    if stored:
        # the recipe may have been changed since it came in
        if source.signature:
            signature.verify(stored, source.signature, folder)
        return stored
    if offline:
        require([component], store)
    reasons, hints = [], []
    for location in component.location:
        where = _name(location)
        try:
            with store.draft() as draft:
                _bring(location, source, draft, work, transport or Transport())
                path = store.put(draft, source, folder=folder)
        except (HttpError, debian.AptError, MismatchError) as error:
            reasons.append(f"{where}: {error.message}")
            hints.append(error.hint or _NETWORK)
            say(f"{source.file}: not from {reasons[-1]}")
        else:
            say(f"{source.file}: from {where}")
            return path
    raise FetchError(
        f"{source.file}: no location gave it, {len(reasons)} tried:",
        reasons,
        hint="; ".join(dict.fromkeys(hints))
        + "; a copy of the file may be put there by hand: "
        + str(store.path(source.sha256, source.file)),
    )


_NETWORK = "is the network reachable (https_proxy, no_proxy)?"


def _name(location: Location) -> str:
    if isinstance(location, Https):
        return location.url
    return f"{location.kind} {location.package} {location.version} ({location.suite})"


def _bring(
    location: Location, source: Source, draft: Draft, work: Path, transport: Transport
) -> None:
    if isinstance(location, Https):
        with bar(source.file, source.size, unit="bytes") as step:
            size = https.Expected(size=source.size, by="the recipe pins")
            https.download(location.url, draft.file, size, transport=transport, step=step)
    else:
        with debian.downloaded(location, work=work) as files:
            _copy(_choose(files, source), draft)


def _choose(files: Iterable[Path], source: Source) -> Path:
    """The one of *files* with *source*'s bytes, whatever its name."""
    problems = []
    for path in files:
        with path.open("rb") as file:
            problem = mismatch(file, source)
        if problem is None:
            return path
        problems.append(f"{path.name} {problem}")
    raise MismatchError("; ".join(problems) or "apt brought no file")


def _copy(path: Path, draft: Draft) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            draft.file.write(chunk)
