"""Restores instances from a backup: all of them are made under other names, and then renamed.

Killed at any point, an instance is absent or whole. Roots and state lie in `.nifty/new` and are on
the disk before the first of them gets its name; from then on until all have theirs, a file says
which backup it is, and the same command goes on with those that are missing.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import ProblemsError
from pipeline.files import Mover
from pipeline.host.backup import inventory, restorable
from pipeline.host.backup.parcel import shown
from pipeline.host.backup.sections import RestoreError
from pipeline.host.backup.unpacking import Unpacker
from pipeline.host.roots import access, images, quota, upgrade
from pipeline.host.state import clients, records
from pipeline.host.state.layout import locked, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.host.backup.parcel import Member
    from pipeline.host.backup.restorable import Todo
    from pipeline.host.backup.scanning import Scanned
    from pipeline.host.backup.sections import Backup
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance


class StoppedError(ProblemsError):
    """A restore that ended early; what has its name is whole."""


def restore(backup: Backup, scanned: Scanned, layout: Layout, *, wait: bool = True) -> Todo:
    """Make the instances that `scanning.scan` found in *backup*; what was done.

    Raises RefusedError before anything is touched, StoppedError or RestoreError with nothing
    restored, or with some if names were given already, and LockedError without *wait*. When units
    know the instances, `end` is to be called.
    """
    prepare(layout)
    with locked(layout, wait=wait):
        trees.empty(layout.new)
        todo = restorable.decide(scanned, layout)
        named = 0
        left = None
        try:
            _stage(backup, todo, layout)
            files.put(layout.restoring, f"{todo.seal}\n".encode())
            if todo.key:
                access.keep_fleet_key(layout, todo.key)
            for one in todo.make:
                _name(one, layout)
                named += 1
            left = records.look(layout)
            clients.write(layout, left.instances)
            files.sync(layout.prefix)
        except (OSError, KeyboardInterrupt) as error:
            raise StoppedError(
                f"restoring stopped: {named} of {len(todo.make)} instances were made below "
                f"{layout.prefix}, none is half made:",
                [_why(error)],
                hint="mend this, then run the same command again: it makes those that are missing",
            ) from error
        finally:
            trees.empty(layout.new)
            upgrade.tidy(layout, records.look(layout) if left is None else left)
    return todo


def end(layout: Layout) -> None:
    """Nothing is left to be done for what was restored."""
    layout.restoring.unlink(missing_ok=True)


def _stage(backup: Backup, todo: Todo, layout: Layout) -> None:
    """Have everything below `new` and on the disk, and the images in their places."""
    for image in todo.images:
        images.store(layout, image)
    with trees.opened(layout.new) as new:
        stager = _Stager(todo, new)
        try:
            seal = backup.read(stager, "restore")
        finally:
            stager.close()
    if seal != todo.seal:
        raise RestoreError(f"{backup.name}: was changed while it was read; nothing was restored")
    for one in todo.make:
        files.write(_record(one, layout), records.encode(one))
    files.sync(layout.prefix)


def _record(one: Instance, layout: Layout) -> Path:
    return layout.new / f"{one.name}.json"


class _Stager:
    """Makes the roots of those that are wanted, as they come."""

    def __init__(self, todo: Todo, new: int) -> None:
        self._wanted = {one.name: one for one in todo.make}
        self._new, self._named = new, todo.projects
        self._root: Unpacker | None = None

    def image(self, digest: str, archive: bytes) -> None:
        """Images were kept before."""

    def key(self, text: bytes) -> None:
        """It is kept later."""

    def begin(self, one: Instance) -> None:
        here = self._wanted.get(one.name)
        if here is not None:
            prefix = inventory.root_path(one.name)
            numbers = quota.projects(here.number, self._named)
            make = partial(quota.make, projects=numbers, size=0) if here.disk else None
            self._root = Unpacker(self._new, one.name, here.base, prefix, make)

    def member(self, member: Member, parts: list[bytes], content: Iterator[bytes]) -> None:
        if self._root is not None:
            try:
                self._root.put(member, parts, content)
            except OSError as error:
                raise OSError(error.errno, error.strerror, member.path) from error

    def end(self, one: Instance) -> None:
        if self._root is not None:
            self._root.end()
            self._root = None
            # no sooner: what is in it may be more than it could write by now
            if disk := self._wanted[one.name].disk:
                with trees.opened(one.name, at=self._new) as root:
                    quota.limit(root, disk)

    def close(self) -> None:
        if self._root is not None:
            self._root.close()


def _name(one: Instance, layout: Layout) -> None:
    """Record it, and then give its root the name: in this order a root is never a stranger's."""
    with trees.opened(layout.new) as new, trees.opened(layout.prefix) as prefix:
        _record(one, layout).replace(layout.instances / records.file_name(one.suffix))
        try:
            Mover().move(new, one.name.encode(), prefix, one.name.encode())
        except OSError:
            records.remove(layout, one.suffix)
            raise


def _why(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return "interrupted"
    name = error.filename
    where = "" if name is None else f"{shown(os.fsencode(name))}: "
    return f"{where}{error.strerror or error}"
