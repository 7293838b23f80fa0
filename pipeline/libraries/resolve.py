"""Resolves what ld.so would load, breadth first, without running anything.

The order, and when two names mean one library: _dl_map_object_deps and _dl_lookup_map of glibc,
load_deps and load_library of musl. Symbol versions: _dl_check_map_versions of glibc's
elf/dl-version.c; musl checks none at start. DT_FILTER and DT_AUXILIARY are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.elf import ElfError
from pipeline.libraries.abi import Abi, Libc, loader_of
from pipeline.libraries.loaded import Closure, Loaded
from pipeline.libraries.problems import Kind, Problem, newest_like
from pipeline.libraries.search import Asker, Found, searcher_of

if TYPE_CHECKING:
    from pipeline.libraries.abi import Loader
    from pipeline.libraries.root import LibraryRoot, Located
    from pipeline.libraries.search import Searcher

# names that musl's ld.so, which is its libc, too, answers to (load_library)
_MUSL_SELF = ("libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet.")


@dataclass(slots=True, kw_only=True, eq=False)
class _Node:
    """A file of the process while others are still being added to it."""

    name: str
    asker: Asker
    located: Located
    searched: tuple[str, ...] = ()
    needs: list[_Node] = field(default_factory=list)

    def frozen(self) -> Loaded:
        return Loaded(
            name=self.name,
            path=self.asker.path,
            file=self.located.file,
            links=self.located.links,
            size=self.located.size,
            needs=tuple(dict.fromkeys(each.asker.path for each in self.needs)),
            searched=self.searched,
            facts=self.asker.facts,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    """What has been loaded so far, by name and by inode, and what went wrong."""

    binary: str
    searcher: Searcher
    nodes: list[_Node]
    interpreter: _Node | None
    names: dict[str, _Node] = field(default_factory=dict)
    inodes: dict[tuple[int, int], _Node] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    @property
    def libc(self) -> Libc:
        return self.searcher.loader.libc

    def load_all(self) -> None:
        for node in self.nodes:  # which grows meanwhile: breadth first
            for entry in dict.fromkeys(node.asker.facts.needed):
                needed = self._load(self.searcher.expanded(entry, node.asker), node.asker)
                if needed is not None:
                    node.needs.append(needed)

    def _load(self, name: str, asker: Asker) -> _Node | None:
        known = self._known(name)
        if known is not None:
            return known
        found = self.searcher.search(name, asker)
        if found.located is None or found.facts is None or found.path is None:
            self.missing.add(name)
            self.problems.append(self._problem(name, asker, found))
            return None
        same = self.inodes.get(found.located.inode)
        if same is not None:
            self.names.setdefault(name, same)
            return self._listed(same)
        loaded = Asker(path=found.path, facts=found.facts, loaded_by=asker)
        node = _Node(name=name, asker=loaded, located=found.located, searched=found.searched)
        self.inodes[found.located.inode] = node
        self.add_names(node, name)
        self.nodes.append(node)
        return node

    def _known(self, name: str) -> _Node | None:
        loader = self.searcher.loader
        if self.libc is Libc.MUSL and (name == loader.path or name.startswith(_MUSL_SELF)):
            node = self.interpreter
        else:
            node = self.names.get(name)
        return None if node is None else self._listed(node)

    def _listed(self, node: _Node) -> _Node:
        """*node*; the interpreter is in the process anyway, but listed once somebody needs it."""
        if node is self.interpreter and node not in self.nodes:
            self.nodes.append(node)
        return node

    def add_names(self, node: _Node, name: str) -> None:
        if self.libc is Libc.MUSL:
            short = node.asker.path.rpartition("/")[2]
            names = {short} if "/" not in name else set()
        else:
            names = {name, node.asker.path, node.asker.facts.soname or name}
        for each in names:
            self.names.setdefault(each, node)

    def _problem(self, name: str, asker: Asker, found: Found) -> Problem:
        kind, detail = Kind.MISSING, ""
        if found.broken is not None:
            kind, detail = Kind.BROKEN, found.broken
        elif found.skipped:
            kind, detail = Kind.MACHINE, ", ".join(found.skipped)
        elif "/" in name and not name.startswith("/"):
            detail = "its path depends on where the program is started"
        return Problem(
            kind=kind,
            binary=self.binary,
            needed_by=asker.path,
            library=name,
            found=found.path,
            searched=found.searched,
            detail=detail,
        )

    def check_versions(self) -> None:
        for node in self.nodes if self.libc is Libc.GLIBC else ():
            for library, versions in node.asker.facts.versions_needed.items():
                for version in versions:
                    self._check_version(node.asker, library, version)

    def _check_version(self, asker: Asker, library: str, version: str) -> None:
        target = self.names.get(library)
        if target is None and library in self.missing:
            return  # told already
        if target is None:
            detail = "is none of the libraries that are loaded"
        else:
            facts = target.asker.facts
            # the base version is the library's own name
            if not facts.has_versions or version in (*facts.versions_defined, facts.soname):
                return
            detail = newest_like(version, facts.versions_defined)
        self.problems.append(
            Problem(
                kind=Kind.VERSION,
                binary=self.binary,
                needed_by=asker.path,
                library=library,
                version=version,
                found=library if target is None else target.asker.path,
                searched=() if target is None else target.searched,
                detail=detail,
            )
        )


def resolve(program: Asker, located: Located, *, binary: str, root: LibraryRoot) -> Closure:
    """The closure of a program, of whose file only the facts are looked at."""
    facts = program.facts
    main = _Node(name=binary, asker=program, located=located)
    if facts.interpreter is None and not facts.needed:
        return Closure(binary=binary, libc=None, program=main.frozen())
    loader = loader_of(facts, root)
    interpreter, problem = _interpreter(loader, program, binary=binary, root=root)
    process = _Process(
        binary=binary,
        searcher=searcher_of(loader, Abi.of(facts), root),
        nodes=[main],
        interpreter=interpreter,
        problems=[problem] if problem and facts.interpreter else [],
    )
    if process.libc is Libc.GLIBC:
        process.add_names(main, program.path)
    if interpreter is not None:
        process.add_names(interpreter, loader.path)
        process.inodes[interpreter.located.inode] = interpreter
    process.load_all()
    process.check_versions()
    return Closure(
        binary=binary,
        libc=process.libc,
        program=main.frozen(),
        interpreter=interpreter.frozen() if interpreter is not None else None,
        libraries=tuple(node.frozen() for node in process.nodes[1:]),
        problems=tuple(process.problems),
    )


def _interpreter(
    loader: Loader, program: Asker, *, binary: str, root: LibraryRoot
) -> tuple[_Node | None, Problem | None]:
    located, detail = root.locate(loader.path), "is not there"
    if located is not None:
        try:
            facts = root.facts(located.file)
        except ElfError as error:
            detail = f"cannot be used: {error.message.partition(': ')[2]}"
        else:
            if Abi.of(facts) == Abi.of(program.facts):
                asker = Asker(path=loader.path, facts=facts)
                return _Node(name=loader.path, asker=asker, located=located), None
            detail = f"is for {Abi.of(facts)}"
    problem = Problem(
        kind=Kind.INTERPRETER,
        binary=binary,
        needed_by=program.path,
        library=loader.path,
        searched=(loader.path.rpartition("/")[0],),
        detail=detail,
    )
    return None, problem
