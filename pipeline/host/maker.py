"""Makes one instance after the other, in a worker process: root, state, and then its name."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.host import identity, images, replay, state, trees
from pipeline.host.layout import DIRECTORY
from pipeline.host.rename import Mover
from pipeline.host.state import Instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.host.access import Access
    from pipeline.host.images import Image
    from pipeline.host.layout import Layout
    from pipeline.host.plan import Create
    from pipeline.host.wanted import Wanted

_STATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker chose for an instance, and tells in 48 bytes."""

    public: bytes
    machine_id: str

    def pack(self) -> bytes:
        """As bytes, for a pipe."""
        return self.public + bytes.fromhex(self.machine_id)

    @classmethod
    def unpack(cls, told: bytes) -> Made:
        """What `pack` gave."""
        return cls(told[:32], told[32:].hex())


class Maker:
    """Everything that is the same for all instances of a deploy, worked out before the fork."""

    def __init__(self, layout: Layout, wanted: Wanted, image: Image, granted: Access) -> None:
        self._layout, self._wanted, self._image, self._granted = layout, wanted, image, granted
        self._blank = identity.blank(image.rootfs, image.manifest)
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
            base=state.base_of(action.number, wanted.users),
            runner=wanted.runner,
            host_key=identity.public_line(made.public),
            machine_id=made.machine_id,
            login=self._image.login,
            boot=wanted.boot,
            register=wanted.register,
            fleet=self._granted.fleet,
        )

    def start(self, creations: tuple[Create, ...]) -> Callable[[int], bytes]:
        """In the worker: the function that makes number *i* of *creations*, a packed Made."""
        writer, mover = replay.Writer(self._template), Mover()
        # each worker has a directory of its own: in a common one they wait for each other
        own = self._layout.new / f"{os.getpid()}"
        own.mkdir(0o700)
        new = os.open(own, DIRECTORY)
        records = os.open(self._layout.instances, DIRECTORY)
        prefix = os.open(self._layout.prefix, DIRECTORY)

        def make(number: int) -> bytes:
            action = creations[number]
            name = f"nifty{action.suffix}".encode()
            temporary, record = name, b"%b.json" % name
            try:
                os.fchdir(new)
                made = self._write(writer, action, temporary)
                os.fchdir(new)
                _record(record, state.encode(self.instance(action, made)))
                os.rename(record, state.file_name(action.suffix).encode(), dst_dir_fd=records)
                mover.move(new, temporary, prefix, name)
            except BaseException:
                os.fchdir(new)
                for left in (temporary, record):
                    with suppress(OSError):  # the error that brought us here is told
                        trees.remove(new, left.decode())
                raise
            return made.pack()

        return make

    def _write(self, writer: replay.Writer, action: Create, temporary: bytes) -> Made:
        base = state.base_of(action.number, self._wanted.users)
        key, machine_id = identity.new_host_key(), identity.new_machine_id()
        os.mkdir(temporary, 0o755)  # noqa: PTH102 (below the current directory, in a hot loop)
        if base:
            os.chown(temporary, base, base)
        os.chdir(temporary)
        name = f"nifty{action.suffix}"
        writer.write(self._blank.fill(name, action.port, machine_id, key), base)
        return Made(key.public, machine_id)


def _record(path: bytes, content: bytes) -> None:
    # not state.write_atomic: here the directory is the current one, and the umask is 0
    file = os.open(path, _STATE, 0o644)
    try:
        while content:
            content = content[os.write(file, content) :]
    finally:
        os.close(file)
