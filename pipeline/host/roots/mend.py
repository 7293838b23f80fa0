"""Finds what a power failure of this or an earlier version emptied in a root, and puts it back.

A file that deploy filled in and that is empty now (or holds NUL bytes alone) was lost: nobody
empties inittab. Where one of those is, every other file of the image that is empty is put back.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import NiftyError, some
from pipeline.host.roots import access, identity, images
from pipeline.host.roots.access import Access
from pipeline.host.roots.guest import GuestRoot
from pipeline.host.roots.rebuild import host_key_in, rebuild
from pipeline.host.state import kept, records
from pipeline.host.state.batch import Batch
from pipeline.host.state.records import Share, StateError
from pipeline.image.rootfs import File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance
    from pipeline.image.manifest import Manifest

# Bytes of a file that are looked at; more than so many NULs are somebody's own.
_LIMIT = 1 << 22


def look(layout: Layout, some: Iterable[Instance]) -> dict[str, tuple[str, ...]]:
    """Paths in the roots of *some* that lost their contents, by suffix; nothing is written.

    What cannot be looked at (by anybody but root, or for want of its manifest) is left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    manifests: dict[str, Manifest | None] = {}
    with suppress(OSError), trees.opened(layout.prefix) as at:
        for one in some:
            if one.image not in manifests:
                manifests[one.image] = None
                with suppress(kept.ImageError):
                    manifests[one.image] = kept.described(layout, one.image)
            manifest = manifests[one.image]
            if manifest is None:
                continue
            with suppress(OSError), trees.opened(one.name, at=at) as root:
                paths = tuple(_lost(root, one, manifest))
                if paths:
                    found[one.suffix] = paths
    return found


def _lost(root: int, one: Instance, manifest: Manifest) -> Iterator[str]:
    for path in manifest.instance:
        if path != manifest.ssh.host_key and _is_empty(root, path):
            yield path
    if host_key_in(root, manifest.ssh.host_key) is None:
        yield manifest.ssh.host_key
    for account in manifest.ssh.accounts:
        path = f"{account.home}/.ssh/authorized_keys".lstrip("/")
        if _is_empty(root, path):
            yield path
    if one.share is Share.NONE:
        for record in manifest.entries:
            if record.path.startswith("cbin/") and record.size and _is_empty(root, record.path):
                yield record.path


def _is_empty(root: int, path: str) -> bool:
    """Whether a regular file is there, and nothing but NUL bytes in it."""
    try:
        with trees.parent(root, path) as (above, name):
            return not files.read(name, limit=_LIMIT, at=above).strip(b"\0")
    except PermissionError:
        raise
    except OSError:
        return False


def mend(
    layout: Layout, lost: Mapping[str, tuple[str, ...]], granted: Access | None
) -> tuple[str, ...]:
    """Put back what `look` found, under the lock; a line for each kind of loss, or what stays lost.

    *granted* are the keys for an authorized_keys that is empty. Raises OSError.
    """
    told: dict[str, list[str]] = defaultdict(list)
    menders: dict[tuple[str, Share, bool], _Mender] = {}
    with Batch(layout) as batch, trees.opened(layout.prefix) as at:
        for suffix in lost:
            one = records.read(layout, suffix)
            if one is None:
                continue
            try:
                kind = (one.image, one.share, one.fleet)
                if kind not in menders:
                    keys = access.fleet_access(layout) if one.fleet else granted
                    menders[kind] = _Mender(images.stored(layout, one.image), one.share, keys)
                mender = menders[kind]
            except NiftyError as error:
                told[f"cannot be mended: {error.message}"].append(one.name)
                continue
            with trees.opened(one.name, at=at) as top:
                mended, lines = mender.apply(GuestRoot(top, one.base), top, one)
            for line in lines:
                told[line].append(one.name)
            if mended != one:
                records.record(batch, layout, mended)
        batch.commit()
    files.sync(layout.prefix)
    return tuple(f"{some(names)}: {line}" for line, names in told.items())


class _Mender:
    """What instances of one image and one kind should have."""

    def __init__(self, image: Image, share: Share, granted: Access | None) -> None:
        self._blank = image.blank
        keys = granted or Access(lines=())
        self._entries = images.entries_of(image, share, keys)

    def apply(self, root: GuestRoot, top: int, one: Instance) -> tuple[Instance, list[str]]:
        """Mend the root of *one*: what is known of it now, and what was done."""
        key = None
        if host_key_in(top, self._blank.host_key_path) is None:
            key = identity.new_host_key()
        filler = key or identity.HostKey(bytes(32), bytes(32))
        contents = self._blank.fill(one.name, one.port, one.machine_id, filler)
        own = dict(zip(self._blank.paths, contents, strict=True))
        put: list[str] = []
        lines: list[str] = []
        for entry in self._entries:
            is_key = entry.path == self._blank.host_key_path
            if not isinstance(entry, File) or not ((is_key and key) or _is_empty(top, entry.path)):
                continue
            content = own.get(entry.path, entry.content)
            if not content and entry.path.endswith("authorized_keys"):
                lines.append(f"/{entry.path} is empty and stays so: no public key is known")
            elif content and root.put(replace(entry, content=content)):
                put.append(entry.path)
            elif is_key:
                lines.append(f"the host key cannot be made anew: /{entry.path} is in its way")
        if key is not None and self._blank.host_key_path in put:
            lines.append("the host key was lost: it has a new one, which known_hosts says")
            one = replace(one, host_key=identity.public_line(key.public))
        files_put = [path for path in put if path != self._blank.host_key_path]
        if files_put:
            put_back = some((f"/{path}" for path in files_put), most=3)
            lines.append(f"{put_back} had lost their contents, and have them again")
        return one, lines


def rebuild_states(
    layout: Layout,
    ports: Mapping[str, int | None],
    known: Sequence[Instance],
    boots: Callable[[str], bool],
) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
    """Record what `rebuild` finds out; those, and a line for each kind of outcome.

    *ports* has the suffixes, and a port for each if nothing says another. *boots* as in `rebuild`.
    Raises OSError.
    """
    made: list[Instance] = []
    problems: list[str] = []
    with Batch(layout) as batch:
        for suffix, port in ports.items():
            try:
                one = rebuild(layout, suffix, (*known, *made), boots=boots, port=port)
            except StateError as error:
                problems.append(error.message)
                continue
            made.append(one)
            records.record(batch, layout, one)
        batch.commit()
    if made:
        names = some([one.name for one in made])
        problems.insert(0, f"{names}: state made anew from the root; the way back is given up")
    return tuple(made), tuple(problems)
