"""Programs taken as they are: into the image, with their libraries or with what they ask of a host.

What is taken lies below /cbin/dropin, which all instances of a host share, and a link stands where
it is looked for: a thousand instances have one copy.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline import elf, libraries
from pipeline.builder.assembly.layer import Layer
from pipeline.builder.assembly.owners import Owner, owners
from pipeline.elf import Linkage
from pipeline.errors import NiftyError, ProblemsError
from pipeline.image import manifest
from pipeline.image.rootfs import Directory, File, Symlink
from pipeline.libraries import Kind, LibraryRoot, requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pipeline.builder.recipes.image import Dropin
    from pipeline.image.rootfs import Entry, Rootfs
    from pipeline.libraries import Closure, Link

# Python's compiled modules name the time stamp of their source, which an image does not keep.
_CACHES = frozenset(("__pycache__",))


class DropinError(ProblemsError):
    """Drop-ins that would not run in the image, or cannot be taken; each problem is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Where drop-ins are taken from: a library root, and the package of each of its files."""

    root: LibraryRoot
    packages: Mapping[str, Owner] | None = None  # None: asked of the tree's own database

    def owners(self, paths: Iterable[str]) -> Mapping[str, Owner]:
        """The package of each path that has one."""
        if self.packages is None:
            return owners(paths, self.root.path)
        return {path: self.packages[path] for path in paths if path in self.packages}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """*entries* for the image, *records* for its manifest, *notes* for the user.

    *sources* are the build host's files that decided it.
    """

    entries: tuple[Entry, ...]
    records: tuple[manifest.DropinRecord, ...]
    notes: tuple[str, ...]
    sources: tuple[Path, ...]


def take(
    dropins: Iterable[Dropin],
    base: Rootfs,
    tree_of: Callable[[Dropin], Tree],
    *,
    architecture: str,
) -> Taken:
    """All of *dropins*, laid over *base*; nothing is run.

    Raises DropinError with every problem of every one.
    """
    layer = Layer(base)
    jobs = [_Job(dropin, tree_of(dropin), layer) for dropin in dropins]
    problems: list[str] = []
    for job in jobs:
        job.collect(architecture)
        problems += job.problems
    problems += layer.conflicts
    if not problems:
        problems += _verify(jobs, layer)
    if problems:
        raise DropinError("drop-ins that would not run:", dict.fromkeys(problems))
    return Taken(
        entries=layer.entries(),
        records=tuple(job.record() for job in jobs),
        notes=tuple(note for job in jobs for note in job.notes),
        sources=tuple(dict.fromkeys(path for job in jobs for path in job.sources)),
    )


@dataclass(slots=True, eq=False)
class _Job:
    """One drop-in on its way into the image."""

    dropin: Dropin
    tree: Tree
    layer: Layer
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    # paths in the tree -> where they lie in the image
    placed: dict[str, str] = field(default_factory=dict)
    programs: list[tuple[str, Closure]] = field(default_factory=list)
    # name -> path in the tree of every library that a closure has
    libraries: dict[str, str] = field(default_factory=dict)
    # paths of ELF files, for the manifest
    binaries: list[str] = field(default_factory=list)

    @property
    def is_copy(self) -> bool:
        return self.dropin.libraries == "copy"

    def collect(self, architecture: str) -> None:
        """Place everything, or tell why not."""
        source = self.dropin.source
        try:
            closure = libraries.closure(PurePosixPath(source), self.tree.root)
        except NiftyError as error:
            self.problems.append(f"{self.dropin.target}: {error.message}")
            return
        self._refuse(closure, architecture)
        if self.problems or closure.program is None:
            return
        located = self.tree.root.locate(source)
        if located is not None:
            content = self._content(str(located.file))
            self._place(str(located.file), self.dropin.target, content, executable=True)
        self._interpreters(closure)
        if self.is_copy:
            self._libraries(closure)
            for path in self.dropin.files:
                self._data(path)

    def _refuse(self, closure: Closure, architecture: str) -> None:
        program = closure.program
        # where libraries come from the host, the build host's do not matter
        if self.is_copy or program is None:
            self.problems += map(str, closure.problems)
        if program is not None and program.facts.machine != architecture:
            machine = program.facts.machine
            self.problems.append(
                f"{self.dropin.source}: is for {machine}, the image for {architecture}"
            )

    def _interpreters(self, closure: Closure) -> None:
        """A script's interpreters and `env`, at their own paths unless the image has such."""
        self._links(closure.links)
        started = [each for each in (closure, *closure.launchers) if each.program is not None]
        paths = [str(each.program.file) for each in started if each.program is not None]
        for path in (*closure.scripts[1:], *paths):
            if path not in self.placed and not self.layer.has_own(path):
                self._place(path, path, self._content(path), executable=True)
        self.programs += [
            (self.placed[path], each)
            for path, each in zip(paths, started, strict=True)
            if path in self.placed
        ]

    def _libraries(self, closure: Closure) -> None:
        programs = {each.program for each in (closure, *closure.launchers)}
        loaders = {each.interpreter for each in (closure, *closure.launchers)}
        for each in closure.files():
            if each in programs:
                continue
            file = str(each.file)
            self._links(each.links)
            self.libraries[each.name] = file
            if file not in self.placed:
                self._place(file, file, self._content(file), executable=each in loaders)

    def _links(self, links: Iterable[Link]) -> None:
        for link in links:
            if not self.layer.has_own(str(link.path)):
                self.layer.put(Symlink(path=self.layer.place(str(link.path)), target=link.target))

    def _data(self, path: str) -> None:
        located = self.tree.root.locate(path)
        if located is None:
            where = f"(with {self.tree.root.path} as /)"
            self.problems.append(f"{self.dropin.target}: files: {path}: no such file {where}")
            return
        self._links(located.links)
        if located.is_regular:
            self._datum(str(located.file))
            return
        for folder, names, files in os.walk(self.tree.root.outside(located.file)):
            names[:] = sorted(set(names) - _CACHES)
            self._note_source(Path(folder))
            top = PurePosixPath("/", os.path.relpath(folder, self.tree.root.path))
            self.layer.put(Directory(path=self.layer.place(str(top))))
            links = [name for name in names if Path(folder, name).is_symlink()]
            for name in sorted([*files, *links]):
                self._datum(str(top / name))

    def _datum(self, path: str) -> None:
        """One data file or link; the libraries of one that is an ELF file come along."""
        outside = self.tree.root.outside(PurePosixPath(path))
        status = outside.lstat()
        if stat.S_ISLNK(status.st_mode):
            self._data_link(path, str(outside.readlink()))
        elif not stat.S_ISREG(status.st_mode):
            self.notes.append(f"{path}: neither file nor link: left out")
        else:
            self._place(path, path, self._content(path), executable=bool(status.st_mode & 0o111))
            content = self.layer.content(self.placed.get(path, ""))
            if content.startswith(b"\x7fELF"):
                self._plugin(path)

    def _data_link(self, path: str, target: str) -> None:
        """As it is if what it leads to comes along, else the file; to the drop-in by its name."""
        located = self.tree.root.locate(path)
        source = self.tree.root.locate(self.dropin.source)
        if located is None:
            self.notes.append(f"{path}: leads nowhere: left out")
            return
        inside = any(
            located.file == PurePosixPath(one) or located.file.is_relative_to(one)
            for one in map(self._real, self.dropin.files)
        )
        place = self.layer.place(path)
        if source is not None and located.file == source.file:
            self.layer.put(Symlink(path=place, target=f"/{self.dropin.target}"))
        elif inside:
            self.layer.put(Symlink(path=place, target=target))
        elif located.is_regular:
            self._place(str(located.file), path, self._content(str(located.file)))
        else:
            self.notes.append(f"{path}: leads to {located.file}, which is not listed: left out")

    def _real(self, path: str) -> str:
        located = self.tree.root.locate(path)
        return path if located is None else str(located.file)

    def _plugin(self, path: str) -> None:
        """A library or helper among the data: what it loads is there already, or comes along."""
        try:
            closure = libraries.closure(PurePosixPath(path), self.tree.root)
        except NiftyError:
            return  # an object file, debug information: nothing that is loaded
        self.notes += [f"{problem} (left as it is)" for problem in closure.problems]
        self._libraries(closure)

    def _place(self, path: str, place: str, content: bytes, *, executable: bool = True) -> None:
        where = self.layer.put(
            File(path=self.layer.place(place), content=content, mode=0o755 if executable else 0o644)
        )
        self.placed[path] = where
        self._note_source(self.tree.root.outside(PurePosixPath(path)))
        if content.startswith(b"\x7fELF"):
            self.binaries.append(path)

    def _note_source(self, path: Path) -> None:
        if self.tree.packages is None:  # those are pinned
            self.sources.append(path)

    def _content(self, path: str) -> bytes:
        content = self.tree.root.content(path)
        if content is None:
            self.problems.append(f"{self.dropin.target}: {path}: cannot be read")
        return content or b""

    def record(self) -> manifest.DropinRecord:
        """What the manifest says of it."""
        of = self.tree.owners(self.placed)
        for path in sorted(set(self.binaries) - set(of)):
            self.notes.append(f"{path}: of no package, so its licence is not in the manifest")
        packages = tuple(
            manifest.PackageRecord(name=one.name, version=one.version, licence=one.licence)
            for one in sorted(set(of.values()), key=lambda one: (one.name, one.version))
        )
        target = self.layer.place(self.dropin.target)
        if self.is_copy:
            files = tuple(self._copied(path, of) for path in sorted(self.binaries))
            return manifest.DropinRecord(
                target=target, libraries="copy", files=files, packages=packages
            )
        return manifest.DropinRecord(
            target=target,
            libraries="bind",
            programs=tuple(self._needs()),
            data=tuple(sorted(self.dropin.files)),
            packages=packages,
        )

    def _needs(self) -> Iterator[manifest.ProgramRecord]:
        for place, closure in self.programs:
            if closure.program is not None and closure.program.facts.linkage is Linkage.DYNAMIC:
                wanted = libraries.needs(closure, program=PurePosixPath("/", place))
                yield manifest.ProgramRecord(path=place, needs=requirements.as_json(wanted))

    def _copied(self, path: str, of: Mapping[str, Owner]) -> manifest.CopiedRecord:
        place = self.placed[path]
        facts = elf.as_json(elf.parse(self.layer.content(place), place))
        package = of[path].name if path in of else None
        return manifest.CopiedRecord(path=place, package=package, elf=facts)


def _verify(jobs: Iterable[_Job], layer: Layer) -> tuple[str, ...]:
    """Why something would not start in the image itself, whose only libraries are its own.

    A library that the host finds by its cache, or by `$ORIGIN`, gets a link in a directory that is
    always searched; then it is looked at once more.
    """
    copies = [job for job in jobs if job.is_copy]
    before = len(layer.entries())
    problems = tuple(_lacking(copies, layer, mend=True))
    if problems or len(layer.entries()) == before:
        return problems
    return tuple(_lacking(copies, layer, mend=False))


def _lacking(jobs: Iterable[_Job], layer: Layer, *, mend: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="nifty-") as name:
        layer.write_programs(Path(name))
        root = LibraryRoot(path=Path(name), has_ldconfig=False)
        for job in jobs:
            closure = libraries.closure(PurePosixPath("/", job.dropin.target), root)
            for problem in closure.problems:
                file = job.libraries.get(problem.library)
                if mend and problem.kind is Kind.MISSING and file and problem.searched:
                    place = layer.place(f"{problem.searched[-1]}/{problem.library}")
                    layer.put(Symlink(path=place, target=f"/{job.placed[file]}"))
                else:
                    yield f"in the image, {problem}"
