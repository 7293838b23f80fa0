"""What a program needs of a host, without a path of the host it was taken from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.elf import ElfFacts, Endianness, FileType, Linkage, Relro, Sizes
from pipeline.libraries.resolve import resolve
from pipeline.libraries.root import LibraryError, Located
from pipeline.libraries.search import Asker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.libraries.loaded import Closure
    from pipeline.libraries.problems import Problem
    from pipeline.libraries.root import LibraryRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """A program's own words: machine, interpreter, sonames, and symbol versions by soname.

    Only what the program itself names. Its libraries' needs are no business of a record that is to
    outlive them: another host's libraries have their own, and `check` follows those.
    """

    program: str
    machine: str
    bits: int
    endianness: Endianness
    interpreter: str | None
    libraries: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]] = field(hash=False)
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    no_default_directories: bool = False


def needs(closure: Closure, *, program: PurePosixPath | None = None) -> Needs:
    """What the closure's program needs; *program* is the path it will have (for `$ORIGIN`).

    Raises LibraryError if a script's interpreter is missing, so that there is no program.
    """
    if closure.program is None:
        told = "; ".join(map(str, closure.problems))
        raise LibraryError(f"{closure.binary}: there is no program to describe: {told}")
    facts = closure.program.facts
    return Needs(
        program=str(program or closure.program.path),
        machine=facts.machine,
        bits=facts.bits,
        endianness=facts.endianness,
        interpreter=facts.interpreter,
        libraries=facts.needed,
        versions=facts.versions_needed,
        rpath=facts.rpath,
        runpath=facts.runpath,
        no_default_directories=facts.no_default_directories,
    )


def resolve_needs(wanted: Needs, root: LibraryRoot) -> Closure:
    """The closure that a program with these needs would have with the libraries of *root*.

    Its program is the record itself: a file of no bytes.
    """
    file = PurePosixPath(wanted.program)
    nowhere = Located(file=file, links=(), inode=(0, 0), is_regular=True, size=0)
    asker = Asker(path=wanted.program, facts=_as_facts(wanted))
    return resolve(asker, nowhere, binary=wanted.program, root=root)


def check(wanted: Needs, root: LibraryRoot) -> tuple[Problem, ...]:
    """Why a program with these needs would not start with the libraries of *root*: all reasons."""
    return resolve_needs(wanted, root).problems


def _as_facts(wanted: Needs) -> ElfFacts:
    return ElfFacts(
        bits=wanted.bits,
        endianness=wanted.endianness,
        machine=wanted.machine,
        type=FileType.DYN,
        linkage=Linkage.DYNAMIC,
        pie=True,
        interpreter=wanted.interpreter,
        needed=wanted.libraries,
        soname=None,
        rpath=wanted.rpath,
        runpath=wanted.runpath,
        versions_needed=wanted.versions,
        versions_defined=(),
        has_versions=False,
        no_default_directories=wanted.no_default_directories,
        executable_stack=False,
        relro=Relro.NONE,
        build_id=None,
        sizes=Sizes(text=0, data=0, bss=0),
        segments=(),
    )


def as_json(wanted: Needs) -> dict[str, Any]:
    """*wanted* in JSON's types, the same for the same program every time."""
    return {
        "program": wanted.program,
        "machine": wanted.machine,
        "bits": wanted.bits,
        "endianness": wanted.endianness.value,
        "interpreter": wanted.interpreter,
        "libraries": list(wanted.libraries),
        "versions": {name: list(wanted.versions[name]) for name in sorted(wanted.versions)},
        "rpath": list(wanted.rpath),
        "runpath": list(wanted.runpath),
        "no_default_directories": wanted.no_default_directories,
    }


def from_json(plain: Mapping[str, Any]) -> Needs:
    """The value that `as_json` was made of; raises LibraryError if it is not of that form."""
    try:
        return Needs(
            program=str(plain["program"]),
            machine=str(plain["machine"]),
            bits=int(plain["bits"]),
            endianness=Endianness(plain["endianness"]),
            interpreter=None if plain["interpreter"] is None else str(plain["interpreter"]),
            libraries=_texts(plain["libraries"]),
            versions=MappingProxyType(
                {str(name): _texts(versions) for name, versions in plain["versions"].items()}
            ),
            rpath=_texts(plain["rpath"]),
            runpath=_texts(plain["runpath"]),
            no_default_directories=bool(plain["no_default_directories"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LibraryError(f"no record of what a program needs: {error!r}") from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{value!r} is no list of texts")
    return tuple(value)
