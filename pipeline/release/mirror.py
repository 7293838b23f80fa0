"""A release is carried elsewhere, bytes as they are: whole, verified while it comes, or not at all.

Of files it is a directory as `doit publish` makes it; of a registry, an OCI image layout or another
registry. What an interrupted run has fetched stays in a directory beside, for the next.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, ProblemsError, reason
from pipeline.net.registry import Registry
from pipeline.net.session import RegistryError
from pipeline.release import (
    check,
    check_stored,
    laid_out,
    layout,
    oci,
    referrers,
    registry,
    repository,
    whole,
)
from pipeline.release.reader import RemoteError
from pipeline.trust import memory, sums, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from pipeline.net.login import Login
    from pipeline.net.reference import Reference
    from pipeline.release import remote, stored
    from pipeline.release.place import Place
    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed


class MirrorError(ProblemsError):
    """A release that is not carried on: what is there stays as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Whose signature is wanted, of how many days, and whether what is there may be newer."""

    ring: Keyring
    now: datetime
    fresh: int | None = None
    downgrade: bool = False


def of_files(client: remote.Client, where: Place, folder: Path, rules: Rules) -> Signed:
    """Have *folder* be the release of files at *where*; who signed it.

    Raises MirrorError, NiftyError.
    """
    with _beside(folder) as beside:
        old = folder if folder.exists() else None
        checks = client.checked(where, rules.ring, beside, fresh=rules.fresh, old=old)
        _refuse(where.url, checks)
        signed = _signed(beside, rules)
        if old is not None:
            _refuse_older(_signed(old, rules), signed, rules, folder)
    return signed


def to_layout(client: stored.Client, where: Place, folder: Path, rules: Rules) -> Signed:
    """Have *folder* be an OCI image layout with what *where* names in a registry; who signed it.

    Raises MirrorError, NiftyError.
    """
    with _beside(folder) as beside:
        signed, made, about = _seen(client, where, rules, beside)
        if folder.exists():
            there = laid_out.Layout(folder=folder)
            index = repository.top(there, "")
            old, _listed, _sums = repository.vouched(there, index, rules.ring, rules.now)
            _refuse_older(old, signed, rules, folder)
        content = layout.of_index(made, about, tag=made.version)
        wanted = {beside / name for name in content}
        for path in beside.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()  # of another version, which was not finished
        layout.write(beside, content)
    return signed


def to_registry(
    client: stored.Client,
    where: Place,
    to: Reference,
    tags: tuple[str, ...],
    rules: Rules,
    login: Login | None,
) -> Signed:
    """Have the repository *to* hold what *where* names, below *tags*; who signed it.

    Raises MirrorError, NiftyError.
    """
    signed, made, about = _seen(client, where, rules, None)
    with Registry(to, login=login, transport=client.transport, writes=True) as opened:
        tags = tags or (made.version,)
        for tag in tags:
            before = opened.get_manifest(tag)
            if before is not None and before != made.blob.content:
                _refuse_older(_signed_there(opened, tag, rules), signed, rules, to)
        # the version's own tag may be moved by whoever has the signature for it
        registry.push(opened, made, about, tags, overwrite=rules.downgrade)
    return signed


def _signed_there(opened: Registry, tag: str, rules: Rules) -> Signed:
    index = repository.top(opened, tag)
    return repository.vouched(opened, index, rules.ring, rules.now)[0]


def _seen(
    client: stored.Client, where: Place, rules: Rules, kept: Path | None
) -> tuple[Signed, oci.Index, list[referrers.Referrer]]:
    seen = check_stored.Seen()
    checks = client.checked(where, rules.ring, fresh=rules.fresh, seen=seen, kept=kept)
    _refuse(where.url, checks)
    if seen.index is None or seen.signed is None:
        raise RegistryError(f"{where.url}: nothing to carry on")
    return seen.signed, seen.index, seen.about


def _refuse(url: str, checks: Iterable[check.Check]) -> None:
    """Look at all, and raise MirrorError with what is wrong."""
    wrong = [f"{one.name}: {one.found}" for one in checks if not one.is_right]
    if wrong:
        raise MirrorError(f"{url}: not carried on:", wrong)


def _signed(folder: Path, rules: Rules) -> Signed:
    try:
        content = files.read(folder / sums.NAME, limit=sums.LIMIT)
        signature = files.read(folder / sums.SIGNATURE, limit=verify.LIMIT)
    except OSError as error:
        raise RemoteError(f"{folder}: no release: {reason(error)}") from error
    return verify.verify(
        content, signature, rules.ring, name=str(folder / sums.NAME), now=rules.now
    )


def _refuse_older(old: Signed, new: Signed, rules: Rules, where: object) -> None:
    if new.created < old.created and not rules.downgrade:
        raise memory.OlderError(
            f"{where}: signed at {old.created:%Y-%m-%d %H:%M} UTC, and what was to replace it "
            f"already at {new.created:%Y-%m-%d %H:%M} UTC",
            hint="downgrade=yes takes it nevertheless",
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A directory beside *folder* that takes its place when the block has gone well.

    Else it stays, for the next run. Raises MirrorError for what no release may replace.
    """
    try:
        with files.locked(folder.with_name(f".{folder.name}.lock"), mode=0o600):
            whole.finish(folder)
            is_ours = (folder / sums.NAME).is_file() or laid_out.is_layout(folder)
            if folder.is_symlink() or (folder.exists() and not is_ours):
                raise MirrorError(
                    f"{folder}: not replaced:",
                    ["it is a link" if folder.is_symlink() else "it is no release"],
                    hint="name a directory that is not there yet, or a mirror that was made before",
                )
            beside = folder.with_name(f"{folder.name}.part")
            if beside.is_symlink() or not beside.is_dir():
                whole.remove(beside)
                beside.mkdir()
                beside.chmod(0o755)
            yield beside
            whole.exchange(beside, folder)
    except OSError as error:
        raise NiftyError(reason(error, folder)) from error
