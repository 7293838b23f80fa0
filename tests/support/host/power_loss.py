"""Commands whose power fails, told as JSON.

`python -m tests.support.host.power_loss KIND WORK IMAGE OTHER`

The file system of KIND lies in a file on xfs, which copies a file in one step (ioctl_ficlone(2)):
a copy is what the disk would hold if the power failed at that moment. A disk's own write cache is
not modelled. Mounting the copy replays its journal, and then everything there is compared with what
was there before and after. All mounts are this process's own, and end with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import signal
import stat
import sys
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

from benchmarks import filesystems
from pipeline.commands import deploy, rolling
from pipeline.host.backup import restore, save, scanning, sections
from pipeline.host.roots import access, images, undeploy, upgrade
from pipeline.host.state import records
from pipeline.host.state.layout import Layout
from pipeline.host.units import sync, unit_files
from pipeline.host.wanted import Wanted, numbered
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HALF = 40
# linux/fs.h: _IOW(0x94, 9, int)
FICLONE = 0x40049409
# linux/prctl.h
PR_SET_PDEATHSIG = 1
SIZE = 2 << 30
# Seconds that a command runs between two moments, and moments that are looked at of all taken.
TICK = 0.01
MOMENTS = 3
# A journal is written each second, as if somebody else were busy there.
MOUNT = {"ext4": ",commit=1", "btrfs": ",commit=1", "xfs": ",nouuid"}
MAKE = {"ext4": ("-E", "lazy_itable_init=0,lazy_journal_init=0"), "xfs": (), "btrfs": ()}
# Not compared: locks, what is under way, and who goes on with which backup.
PASSED = re.compile(r"\.nifty/(lock|changing|restoring|new(/.*)?)|\.bystander|lost\+found")
# Laid ready beside a file that is to be replaced; the rerun takes it away.
PART = re.compile(r"(.*\.nifty-part|(.*/)?\.[^/]*\.part)")
# Made anew where an instance is made anew: only what kind of file it is and how large is compared.
RANDOM = re.compile(
    r"nifty\d+/(etc/machine-id|etc/dropbear/.*_host_key|home/.*/authorized_keys)"
    r"|\.nifty/(instances/.*|known_hosts|fleet_key.*)"
)

Seen = dict[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Command:
    """One that is run, and again on each copy; *moves*: roots that are there change."""

    name: str
    run: Callable[[Path], object]
    moves: bool = False


@dataclass(slots=True)
class Story:
    """What was looked at, and what was wrong."""

    moments: int = 0
    during: int = 0
    problems: list[str] = field(default_factory=list)


def seen(prefix: Path) -> Seen:
    """Everything below *prefix*, but for times."""
    found: Seen = {}
    for folder, folders, names in os.walk(prefix):
        for name in (*folders, *names):
            path = Path(folder, name)
            inside = str(path.relative_to(prefix))
            if PASSED.fullmatch(inside):
                continue
            facts = path.lstat()
            about = (facts.st_uid, facts.st_gid, oct(facts.st_mode))
            if stat.S_ISREG(facts.st_mode):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[inside] = (facts.st_size, *about, digest)
            elif stat.S_ISLNK(facts.st_mode):
                found[inside] = (str(path.readlink()), *about)
            else:
                found[inside] = ("directory", *about)
    return found


def below(found: Seen, top: str) -> Seen:
    """What lies at *top* and below."""
    return {path: fact for path, fact in found.items() if f"{path}/".startswith(f"{top}/")}


def roots(found: Seen) -> dict[str, Seen]:
    """The instances' roots, by name."""
    tops: dict[str, Seen] = {}
    for path, fact in found.items():
        name = path.partition("/")[0]
        if re.fullmatch(r"nifty\d+", name) and not PART.fullmatch(path):
            tops.setdefault(name, {})[path] = fact
    return tops


def record(name: str) -> str:
    """Where its state lies."""
    return f".nifty/instances/{name.removeprefix('nifty')}.json"


def check_moment(command: Command, before: Seen, after: Seen, now: Seen) -> Iterator[str]:
    """What is neither whole nor absent, and what was there before and is lost."""
    for path, fact in now.items():
        if fact not in (before.get(path), after.get(path)) and not PART.fullmatch(path):
            yield f"{path}: {fact}, before {before.get(path)}, after {after.get(path)}"
    for path in before.keys() & after.keys() - now.keys():
        yield f"{path}: lost"
    versions = [(which, roots(which)) for which in (before, after)]
    for name, root in roots(now).items():
        known = now.get(record(name))
        if known is None:
            yield f"{name}: a root without state"
        # one that moves is the old image's until its state says otherwise, and changes meanwhile
        elif not (command.moves and known == before.get(record(name))) and not any(
            which.get(record(name)) == known and tops.get(name) == root for which, tops in versions
        ):
            yield f"{name}: not whole"


def used_images(prefix: Path) -> set[str]:
    """Digests of the images that instances here have."""
    layout = Layout(prefix)
    return {one.image for one in records.read_all(layout) if layout.root(one.name).is_dir()}


def check_images(prefix: Path, before: Seen, after: Seen, now: Seen) -> Iterator[str]:
    for digest in used_images(prefix):
        parts = (f"cbin/{digest}", f".nifty/images/{digest}.json", f".nifty/images/{digest}.image")
        for part in parts:
            whole = [below(which, part) for which in (before, after) if part in which]
            if below(now, part) not in whole:
                yield f"{part}: not whole, and an instance has it"


def check_rerun(after: Seen, copy: Seen, now: Seen) -> Iterator[str]:
    """What the same command, typed again, has not finished, or has changed without need."""
    for path in after.keys() | now.keys():
        wanted, found = after.get(path), now.get(path)
        if RANDOM.fullmatch(path) and wanted and found:
            wanted, found = wanted[:-1], found[:-1]
        if wanted != found:
            yield f"after the rerun: {path}: {found}, not {wanted}"
    whole, then = roots(after), roots(now)
    for name, root in roots(copy).items():
        if root == whole.get(name) != then.get(name):
            yield f"after the rerun: {name}: was whole and is another"


def in_child(work: Callable[[], object], log: Path) -> int:
    """Run *work* in a group of its own, what it says in *log*; its process."""
    child = os.fork()
    if child:
        with suppress(PermissionError):
            os.setpgid(child, child)
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with log.open("wb") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (a fork must not unwind into the parent's code)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class Disk:
    """A file system of *kind* in a file, of which copies can be taken while it is in use."""

    def __init__(self, kind: str, base: Path) -> None:
        self.kind, self.base = kind, base
        self.live, self.mount = base / "live", base / "mount"
        self.mount.mkdir()
        with self.live.open("wb") as file:
            file.truncate(SIZE)
        run([f"mkfs.{kind}", "-q", *MAKE[kind], self.live], timeout=120)
        with self.mounted(self.live) as prefix:
            prefix.chmod(0o755)

    @contextmanager
    def mounted(self, file: Path) -> Iterator[Path]:
        """The disk in *file*; one at a time, as all have one UUID."""
        run(["mount", "-o", f"loop{MOUNT[self.kind]}", file, self.mount])
        try:
            yield self.mount
        finally:
            deadline = time.monotonic() + 20
            while run(["umount", self.mount], check=False).returncode and (
                time.monotonic() < deadline
            ):
                time.sleep(0.05)
            if self.kind == "btrfs":
                # else an older copy is taken for a device that is out of date
                run(["btrfs", "device", "scan", "--forget"], check=False)

    def copy(self, name: str) -> Path:
        """The disk as it is at this moment."""
        target = self.base / name
        with self.live.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new, FICLONE, old.fileno())
        return target


def bystander(prefix: Path) -> None:
    """Somebody's fsync(2): names of others become durable by it, contents do not."""
    with (prefix / ".bystander").open("ab") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file)


def taken(disk: Disk, prefix: Path, command: Command) -> tuple[dict[str, Path], int]:
    """Copies of moments while *command* runs and when it has ended, and its exit code."""
    child = in_child(partial(command.run, prefix), disk.base / "log")
    copies: list[Path] = []
    try:
        while True:
            time.sleep(TICK)
            ended, code = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            os.killpg(child, signal.SIGSTOP)
            bystander(prefix)
            copies.append(disk.copy(f"{command.name}.{len(copies)}"))
            os.killpg(child, signal.SIGCONT)
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    kept = {f"moment {at} of {len(copies)}": copies[at] for at in _spread(len(copies))}
    for copy in set(copies) - set(kept.values()):
        copy.unlink()
    kept["when it had returned"] = disk.copy(f"{command.name}.returned")
    bystander(prefix)
    kept["after somebody's fsync"] = disk.copy(f"{command.name}.fsync")
    return kept, os.waitstatus_to_exitcode(code)


def _spread(total: int) -> Sequence[int]:
    """Some of so many moments, the last of them always."""
    return sorted({total - 1 - at * total // MOMENTS for at in range(MOMENTS)} - {-1})


def told(disk: Disk) -> str:
    return "\n".join((disk.base / "log").read_text("utf-8", "replace").splitlines()[-6:])


def play(disk: Disk, command: Command, story: Story) -> None:
    """Run *command*, and look at what each moment would have left."""
    with disk.mounted(disk.live) as prefix:
        before = seen(prefix)
        copies, code = taken(disk, prefix, command)
        after = seen(prefix)
    if code:
        story.problems.append(f"{command.name}: {told(disk)}")
    story.during += len(copies) - 2
    for moment, copy in copies.items():
        found: list[str] = []
        with disk.mounted(copy) as prefix:
            now = seen(prefix)
            found += check_moment(command, before, after, now)
            try:
                found += check_images(prefix, before, after, now)
            except records.StateError as error:
                found.append(str(error))
            if moment == "when it had returned" and now != after:
                wrong = sorted(path for path in after | now if now.get(path) != after.get(path))
                found.append(f"not on the disk: {len(wrong)} paths, {wrong[:3]}")
            child = in_child(partial(command.run, prefix), disk.base / "log")
            if os.waitpid(child, 0)[1]:
                found.append(f"the rerun fails: {told(disk)}")
            else:
                found += check_rerun(after, now, seen(prefix))
        copy.unlink()
        story.moments += 1
        story.problems += [f"{command.name}, {moment}: {one}" for one in found[:5]]
        if len(found) > 5:
            story.problems.append(f"{command.name}, {moment}: and {len(found) - 5} more")


def move(prefix: Path, suffixes: Sequence[str], image: images.Image | None) -> None:
    """As `doit upgrade` does of stopped instances: a batch, what units read, and then tidy."""
    layout = Layout(prefix)
    upgrade.upgrade(layout, suffixes, image)
    sync.follow(layout, suffixes)
    rolling.tidy(layout)


def commands(work: Path, image: images.Image, other: images.Image) -> Iterator[Command]:
    """What is played, in this order."""
    saved = work / "saved"

    def deployed(first: int) -> Callable[[Path], object]:
        def go(prefix: Path) -> None:
            targets = numbered(HALF, first=first, port=20000)
            deploy.deploy(Wanted(targets=targets, prefix=prefix), image)
            sync.settle(Layout(prefix))

        return go

    def upgraded(prefix: Path) -> None:
        move(prefix, [one.suffix for one in records.read_all(Layout(prefix))], other)

    def rolled_back(prefix: Path) -> None:
        new = [one.suffix for one in records.read_all(Layout(prefix)) if one.image == other.digest]
        move(prefix, new, None)

    def undeployed(prefix: Path) -> None:
        there = [one.suffix for one in records.read_all(Layout(prefix)) if int(one.suffix) > HALF]
        undeploy.undeploy(prefix, there)
        sync.settle(Layout(prefix))

    def restored(prefix: Path) -> None:
        layout = Layout(prefix)
        names = {f"nifty{number}" for number in range(HALF + 1, 2 * HALF + 1)}
        there = {one.name for one in records.read_all(layout) if layout.root(one.name).is_dir()}
        if names <= there and not layout.restoring.exists():
            return  # it had ended, and the command says that they are there
        wish = scanning.Wish(
            choose=lambda listed: tuple(one for one in listed if one.name in names)
        )
        with sections.opened(saved) as file:
            restore.restore(file, scanning.scan(file, layout, wish), layout)
        sync.settle(layout)
        restore.end(layout)

    yield Command("deploy", deployed(1))
    yield Command("deploy of more", deployed(HALF + 1))
    yield Command("upgrade", upgraded, moves=True)
    yield Command("rollback", rolled_back, moves=True)
    yield Command("undeploy", undeployed)
    yield Command("restore", restored)


def furnish(prefix: Path) -> None:
    """What users write in their instances."""
    for one in records.read_all(Layout(prefix)):
        (prefix / one.name / "etc/profile").write_text("# mine\n")
        notes = prefix / one.name / "home/luser/notes"
        notes.write_text(f"notes of {one.name}\n")
        os.chown(notes, one.base + 1000, one.base + 1000)


def main(kind: str, work: Path, image: Path, other: Path) -> None:
    """Print the story of a file system of *kind*."""
    filesystems.keep_mounts_private()
    story = Story()
    with ExitStack() as stack:
        # no unit is written, and no key of root's taken: the fleet gets one, which may not be lost
        stack.enter_context(patch.object(unit_files, "install", return_value=()))
        stack.enter_context(patch.object(access, "keys_of_user", return_value=None))
        # in memory: what matters is what was written to it, not how fast
        memory = stack.enter_context(filesystems.fresh("tmpfs", work))
        base = stack.enter_context(filesystems.fresh("xfs", memory))
        disk = Disk(kind, base)
        first, second = images.load(image), images.load(other)
        for command in commands(work, first, second):
            play(disk, command, story)
            with disk.mounted(disk.live) as prefix:
                if command.name.startswith("deploy"):
                    furnish(prefix)
                if command.name == "rollback":
                    names = [one.name for one in records.read_all(Layout(prefix))]
                    with (work / "saved").open("wb") as sink:
                        save.backup(Layout(prefix), names, sink)
    json.dump(
        {"moments": story.moments, "during": story.during, "problems": story.problems}, sys.stdout
    )


def _ended(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    main(sys.argv[1], *map(Path, sys.argv[2:]))
