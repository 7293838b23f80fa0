"""Whether a backup can be restored here, and how: all is looked at before anything is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, ProblemsError, some
from pipeline.host.backup import inventory, placing
from pipeline.host.binds.rules import refusal
from pipeline.host.doctor import facts, limits, probe
from pipeline.host.doctor.rows import Stage
from pipeline.host.roots import access, quota
from pipeline.host.state import records
from pipeline.host.state.records import Users
from pipeline.host.units import unit_files
from pipeline.host.units.runner import Launch
from pipeline.host.units.runners import RUNNERS
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.host.backup.scanning import Room, Scan, Scanned, Wish
    from pipeline.host.doctor.facts import Facts
    from pipeline.host.doctor.rows import Asked
    from pipeline.host.roots.images import Image
    from pipeline.host.state.layout import Layout
    from pipeline.host.state.records import Instance

_MIB = 1 << 20


class RefusedError(ProblemsError):
    """Why a backup cannot be restored here; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """What is to be done: *make* are instances as they will be, *done* were made by a run before.

    *images* are those to be kept, *key* the fleet's private key if it is to be; *seal* is the
    digest that the backup is sealed with, *rooms* what each instance takes, *projects* are numbers
    that are not to be had for a bound on a disk.
    """

    make: tuple[Instance, ...]
    done: tuple[Instance, ...]
    images: tuple[Image, ...]
    key: bytes | None
    seal: str
    rooms: Mapping[str, Room]
    projects: frozenset[int]
    warnings: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """For `dry=yes`."""
        told = [f"warning: {warning}" for warning in self.warnings]
        told += [f"keep image {image.digest[:12]}" for image in self.images]
        told += ["keep the fleet's private key"] if self.key else []
        told += [f"{one.name} is restored already" for one in self.done]
        for one in self.make:
            room = self.rooms[one.name]
            told.append(
                f"restore {one.name}, port {one.port}, users from {one.base} on, "
                f"runner {one.runner}, {room.size / _MIB:.1f} MiB, {room.inodes} inodes"
                + (f", at most {quota.told(one.disk)} of disk" if one.disk else "")
            )
        return tuple(told) or ("nothing to do",)


def decide(scanned: Scanned, layout: Layout, stage: Stage | None = None) -> Todo:
    """What restoring would do; changes nothing.

    All that *stage* depends on is looked at; None: what may have changed since. Raises
    RefusedError with all that stands against restoring it here.
    """
    return _decided(_Case(scanned, facts.gather(layout, records.look(layout)), layout), stage)


@dataclass(slots=True)
class _Case:
    """All that is known, and the *problems* and *warnings* that come of it."""

    scanned: Scanned
    known: Facts
    layout: Layout
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def scan(self) -> Scan:
        return self.scanned.scan

    @property
    def wish(self) -> Wish:
        return self.scanned.wish


def begun(layout: Layout) -> str | None:
    """The seal of the backup whose restoring was begun and not ended, by a run that was killed."""
    try:
        return files.read_text(layout.restoring, limit=100).strip()
    except OSError:
        return None


def _decided(case: _Case, stage: Stage | None) -> Todo:
    apart, done = _apart(case)
    apart = [_as_wished(case, one) for one in apart]
    needed = _images(case, apart)
    placed = placing.place(
        apart,
        case.known,
        case.layout.prefix,
        placing.needs(
            [case.scan.rooms[one.name] for one in apart],
            [image for image in needed if image.digest not in case.known.images],
        ),
        typed=case.scanned.typed,
    )
    if stage is None:
        found = limits.deploy_rows(placed.asked, case.known.site)
        case.problems += limits.lines(limits.blocking(found, Stage.DEPLOY))
        case.warnings += limits.warnings(found)
    else:
        _examined(case, apart, placed.asked, stage)
    case.problems += _unfit(case, apart)
    if apart and case.scan.attributed and (why := _no_attributes(case.layout)):
        case.problems.append(
            f"files have extended attributes, which {case.layout.prefix} does not keep: {why}"
        )
    key = _key(case, apart)
    if case.problems:
        raise RefusedError(
            f"nothing was restored below {case.layout.prefix}:",
            case.problems,
            hint="names= restores some of a backup; dry=yes shows what would be",
        )
    live = [one.name for one in placed.make if one.name in case.scanned.listed.live]
    if live:
        case.warnings.append(
            f"{some(live, most=1)} ran while copied: files in change then may be half written"
        )
    return Todo(
        make=placed.make,
        done=tuple(done),
        images=needed,
        key=key,
        seal=case.scanned.seal,
        rooms=case.scan.rooms,
        projects=case.known.site.projects,
        warnings=tuple(case.warnings),
    )


def _apart(case: _Case) -> tuple[list[Instance], list[Instance]]:
    """Those to be made, and those that an earlier run of the same restore has made."""
    there = {one.suffix: one for one in case.known.instances}
    is_next = begun(case.layout) == case.scanned.seal
    make, done = [], []
    for one in case.scanned.chosen:
        old = there.get(one.suffix)
        has_root = one.name in case.known.roots
        if one.suffix in case.known.damaged:
            case.problems.append(
                f"{one.name}: its state here is damaged; "
                f"{to_type(f'undeploy names={one.suffix or one.name}')} removes both"
            )
        elif old is None:
            make.append(one)
        elif (old.host_key, old.machine_id) != (one.host_key, one.machine_id):
            case.problems.append(f"{one.name}: the name is taken by another instance")
        elif not has_root:
            make.append(one)
        elif is_next:
            done.append(old)
        else:
            case.problems.append(f"{one.name}: is there already, it has the same host key")
    return make, done


def _as_wished(case: _Case, one: Instance) -> Instance:
    wish = case.wish
    return replace(
        one,
        runner=wish.runner or one.runner,
        boot=one.boot if wish.boot is None else wish.boot,
        disk=one.disk if wish.disk is None else wish.disk,
    )


def _examined(case: _Case, make: Sequence[Instance], asked: Asked, stage: Stage) -> None:
    """Add what this host lacks, by the checks that deploy and start have."""
    host = probe.read(prefix=case.layout.prefix)
    found = limits.check(asked, host)
    case.problems += limits.lines(limits.blocking(found, stage))
    case.warnings += limits.warnings(found)
    if all(need.program in host.programs for one in make for need in RUNNERS[one.runner].needs):
        try:
            unit_files.check(
                ((unit_files.runner_of(one), one.suffix) for one in make), case.layout.prefix
            )
        except NiftyError as error:
            case.problems.append(f"{error.message}; {error.hint}")


def _images(case: _Case, make: list[Instance]) -> tuple[Image, ...]:
    """The images that are to be kept; those of no use only for going back are done without."""
    refused = case.scan.refused
    for digest in {one.image for one in make} & refused.keys():
        case.problems.append(refused[digest])
    for number, one in enumerate(make):
        login = case.scan.images[one.image].login if one.image in case.scan.images else ""
        previous = None if one.previous in refused else one.previous
        if previous != one.previous:
            case.warnings.append(f"{one.name}: no way back: {refused[one.previous or '']}")
        make[number] = replace(one, previous=previous, login=login)
    return tuple(
        image for digest in inventory.used(make) if (image := case.scan.images.get(digest))
    )


def _unfit(case: _Case, make: Sequence[Instance]) -> Iterator[str]:
    """What of the instances this host, or the person who asked, does not want."""
    shared = [one.name for one in make if one.users is Users.HOST]
    if shared and not case.wish.host_users:
        yield (
            f"{some(shared, most=1)}: shares the host's users, so root inside is root here but "
            "for some capabilities; say users=host if you trust this backup as you trust root"
        )
    for one in make:
        if case.wish.disk and case.scan.rooms[one.name].size > case.wish.disk:
            size = case.scan.rooms[one.name].size / _MIB
            yield f"{one.name}: takes {size:.1f} MiB, disk={quota.told(one.disk)} is less"
    told = set()
    for one in make:
        base = None if one.users is Users.HOST else one.base
        launch = Launch(base=base, cbin=None, register=one.register)
        why = RUNNERS[one.runner].refusal(launch)
        if why and why not in told:
            told.add(why)
            yield f"{one.name}: {why}"
    for image in {one.image: case.scan.images.get(one.image) for one in make}.values():
        if image is not None:
            yield from image.bound.problems
            yield from filter(None, map(refusal, unit_files.binds_of(image.manifest)))


def _no_attributes(layout: Layout) -> str | None:
    """Why files there cannot have user attributes; None if they can, or nobody can say."""
    folder = layout.new if layout.new.is_dir() else layout.prefix
    try:
        # a file without a name is gone with its descriptor
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        os.setxattr(file, b"user.nifty", b"")
    except OSError as error:
        return error.strerror
    finally:
        os.close(file)
    return None


def _key(case: _Case, make: Sequence[Instance]) -> bytes | None:
    """The fleet's private key, if one of *make* is opened by it and this host has none yet."""
    if not any(one.fleet for one in make):
        return None
    if case.scan.secret is None:
        case.problems.append("the fleet's private key, which opens some of them, is missing")
        return None
    try:
        line = access.public_of(case.scan.secret)
    except NiftyError as error:
        case.problems.append(error.message)
        return None
    present = access.fleet_access(case.layout)
    if present is None:
        return case.scan.secret
    if present.lines[0].split()[:2] != line.split()[:2]:
        case.problems.append(
            f"{case.layout.fleet_key} is another key than the one that opens these instances; if "
            "no instance here needs it, move it and its .pub away"
        )
    return None
