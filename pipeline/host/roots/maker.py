"""Makes one instance after the other, in a worker process; gives many of them their names.

Root and state are written below PREFIX/.nifty/new. Only when their contents are on the disk do they
get their names, all states before the first root: a root without state would be somebody else's.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.files import Mover
from pipeline.host.roots import identity, images, quota, replay
from pipeline.host.state import records
from pipeline.host.state.records import Instance
from pipeline.trees import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from pipeline.host.roots.access import Access
    from pipeline.host.roots.actions import Create
    from pipeline.host.roots.images import Image
    from pipeline.host.state.batch import Batch
    from pipeline.host.state.layout import Layout
    from pipeline.host.wanted import Wanted

_STATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


_NUMBER = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker chose for an instance, and in which *folder* of `new` it made that; packed."""

    public: bytes
    machine_id: str
    folder: int

    def pack(self) -> bytes:
        """As bytes, for a pipe."""
        return self.public + bytes.fromhex(self.machine_id) + _NUMBER.pack(self.folder)

    @classmethod
    def unpack(cls, told: bytes) -> Made:
        """What `pack` gave."""
        return cls(told[:32], told[32:48].hex(), *_NUMBER.unpack(told[48:]))


class Maker:
    """Everything that is the same for all instances of a deploy, worked out before the fork.

    *named*: numbers of projects that this host has names for.
    """

    def __init__(
        self,
        layout: Layout,
        wanted: Wanted,
        image: Image,
        granted: Access,
        named: Container[int],
    ) -> None:
        self.layout, self._wanted, self._image, self._granted = layout, wanted, image, granted
        self._named = named
        self._blank = image.blank
        entries = images.entries_of(image, wanted.share, granted)
        self._template = replay.compile_entries(entries, self._blank.paths)
        identity.new_host_key()  # so that the workers find the library loaded

    def instance(self, action: Create, made: Made) -> Instance:
        """What is recorded of it."""
        wanted = self._wanted
        return Instance(
            suffix=action.suffix,
            number=action.number,
            port=action.port,
            image=self._image.digest,
            share=wanted.share,
            users=wanted.users,
            base=records.base_of(action.number, wanted.users),
            runner=wanted.runner,
            host_key=identity.public_line(made.public),
            machine_id=made.machine_id,
            login=self._image.login,
            boot=wanted.boot,
            register=wanted.register,
            fleet=self._granted.fleet,
            disk=action.disk,
        )

    def start(self, creations: tuple[Create, ...]) -> Callable[[int], bytes]:
        """In the worker: the function that makes number *i* of *creations*, a packed Made.

        What it makes has no name yet: `publish` gives it one.
        """
        writer = replay.Writer(self._template)
        # each worker has a directory of its own: in a common one they wait for each other
        own = self.layout.new / f"{os.getpid()}"
        own.mkdir(0o700)
        new = os.open(own, DIRECTORY)

        def make(number: int) -> bytes:
            action = creations[number]
            name = f"nifty{action.suffix}".encode()
            record = b"%b.json" % name
            try:
                os.fchdir(new)
                if action.disk:
                    projects = quota.projects(action.number, self._named)
                    quota.make(new, name, projects=projects, size=action.disk)
                else:
                    os.mkdir(name, 0o755)  # noqa: PTH102 (in the current directory)
                made = self._write(writer, action, name)
                os.fchdir(new)
                _record(record, records.encode(self.instance(action, made)))
            except BaseException:
                os.fchdir(new)
                for left in (name, record):
                    with suppress(OSError):  # the error that brought us here is told
                        trees.remove(new, left.decode())
                raise
            return made.pack()

        return make

    def publish(self, done: Sequence[tuple[Create, Made]], batch: Batch) -> None:
        """Give what the workers made its names, once it is on the disk, after those of *batch*.

        The names are not on the disk yet. Raises OSError.
        """
        layout = self.layout
        files.sync(layout.new)
        batch.name()
        mover = Mover()
        with (
            trees.opened(layout.new) as new,
            trees.opened(layout.instances) as states,
            trees.opened(layout.prefix) as prefix,
        ):
            for action, made in done:
                source = f"{made.folder}/nifty{action.suffix}.json"
                target = records.file_name(action.suffix)
                try:
                    os.replace(source, target, src_dir_fd=new, dst_dir_fd=states)
                except IsADirectoryError:
                    # a damaged one of no use
                    trees.remove(states, target)
                    os.replace(source, target, src_dir_fd=new, dst_dir_fd=states)
            for action, made in done:
                name = f"nifty{action.suffix}"
                mover.move(new, f"{made.folder}/{name}".encode(), prefix, name.encode())

    def _write(self, writer: replay.Writer, action: Create, temporary: bytes) -> Made:
        base = records.base_of(action.number, self._wanted.users)
        key, machine_id = identity.new_host_key(), identity.new_machine_id()
        if base:
            os.chown(temporary, base, base)
        os.chdir(temporary)
        name = f"nifty{action.suffix}"
        writer.write(self._blank.fill(name, action.port, machine_id, key), base)
        return Made(key.public, machine_id, os.getpid())


def _record(path: bytes, content: bytes) -> None:
    # not files.write: here the directory is the current one, and the umask is 0
    file = os.open(path, _STATE, 0o644)
    try:
        while content:
            content = content[os.write(file, content) :]
    finally:
        os.close(file)
