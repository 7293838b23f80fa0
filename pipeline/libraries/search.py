"""Where ld.so looks for one library, and what it makes of what it finds there.

glibc: _dl_map_new_object and open_verify in elf/dl-load.c; musl: load_library in ldso/dynlink.c.
LD_LIBRARY_PATH plays no part, and neither do directories that are relative to wherever a program
is started. The subdirectories `tls`, `haswell` and the like, which glibc searched up to 2.36, are
left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.elf import ElfError, FileType, Linkage
from pipeline.libraries import ldcache, ldconf
from pipeline.libraries.abi import Abi, Libc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.elf import ElfFacts
    from pipeline.libraries.abi import Loader
    from pipeline.libraries.ldcache import Cache
    from pipeline.libraries.root import LibraryRoot, Located

_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")
_MUSL_TOKEN = re.compile(r"\$(?:\{ORIGIN\}|ORIGIN)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asker:
    """A file in the process that needs others: *path* is its l_name, *loaded_by* its l_loader."""

    path: str
    facts: ElfFacts
    loaded_by: Asker | None = None

    @property
    def origin(self) -> str:
        """`$ORIGIN`."""
        return self.path.rpartition("/")[0] or "/"

    def line(self) -> Iterator[Asker]:
        """Itself, who loaded it, who loaded that one, up to the program."""
        each: Asker | None = self
        while each is not None:
            yield each
            each = each.loaded_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a search ended.

    With *located* and *facts*, at a library that fits, which ld.so calls *path*. With *broken*, at
    a file that is fatal to ld.so. Otherwise nowhere. *skipped* says what was passed over, and why.
    """

    path: str | None = None
    located: Located | None = None
    facts: ElfFacts | None = None
    broken: str | None = None
    searched: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Skip:
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fatal:
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Searcher:
    """Searches *root* as *loader* does in a process of *abi*."""

    root: LibraryRoot
    loader: Loader
    abi: Abi
    cache: Cache | None
    configured: tuple[str, ...]

    def search(self, name: str, asker: Asker) -> Found:
        """Look for *name*, an entry of DT_NEEDED whose tokens are expanded."""
        searched: dict[str, None] = {}
        skipped: dict[str, None] = {}
        for directory, path in self._candidates(name, asker):
            searched[directory] = None
            located = self.root.locate(path) if path else None
            if located is None:
                continue
            match self._verdict(located):
                case _Skip(why=why):
                    skipped[f"{path} ({why})"] = None
                case _Fatal(why=why):
                    return Found(path=path, broken=why, searched=tuple(searched))
                case facts:
                    return Found(path=path, located=located, facts=facts, searched=tuple(searched))
        return Found(searched=tuple(searched), skipped=tuple(skipped))

    def expanded(self, text: str, asker: Asker) -> str:
        """*text* with `$ORIGIN`, `$LIB` and `$PLATFORM` of *asker* replaced."""
        if self.loader.libc is Libc.MUSL:
            return text  # which knows tokens in search paths only
        platform = self.root.platform or self.abi.machine
        values = {"ORIGIN": asker.origin, "LIB": self.loader.lib, "PLATFORM": platform}
        return _TOKEN.sub(lambda token: values[token[1] or token[2]], text)

    def _candidates(self, name: str, asker: Asker) -> Iterator[tuple[str, str]]:
        """Each place that is looked at: what to call it, and the path tried there."""
        if "/" in name:
            if name.startswith("/"):
                yield name.rpartition("/")[0] or "/", name
        elif self.loader.libc is Libc.MUSL:
            for directory in self._musl_directories(asker):
                yield directory, f"{directory}/{name}"
        else:
            yield from self._glibc_candidates(name, asker)

    def _musl_directories(self, asker: Asker) -> Iterator[str]:
        """DT_RUNPATH, or else DT_RPATH, of the whole line of loaders, then the system's."""
        for each in asker.line():
            paths = each.facts.runpath or each.facts.rpath
            if all("$" not in _MUSL_TOKEN.sub("", path) for path in paths):
                for path in paths:
                    directory = each.origin.join(_MUSL_TOKEN.split(path))
                    if directory.startswith("/"):
                        yield directory
        yield from (path for path in self.loader.directories if path.startswith("/"))

    def _glibc_candidates(self, name: str, asker: Asker) -> Iterator[tuple[str, str]]:
        if not asker.facts.runpath:
            for each in asker.line():
                if not each.facts.runpath:
                    yield from self._below(self._listed(each.facts.rpath, each), name)
        yield from self._below(self._listed(asker.facts.runpath, asker), name)
        hidden = self.loader.directories if asker.facts.no_default_directories else ()
        if self.cache is None:
            outside = (path for path in self.configured if path not in hidden)
            yield from self._below(outside, name)
        else:
            path = self.cache.lookup(name, self.abi, self.root.hwcaps)
            is_hidden = path is not None and path.startswith(tuple(f"{one}/" for one in hidden))
            yield ldcache.PATH, "" if path is None or is_hidden else path
        if not hidden:
            yield from self._below(self.loader.directories, name)

    def _listed(self, paths: Sequence[str], asker: Asker) -> Iterator[str]:
        """The absolute directories of DT_RPATH or DT_RUNPATH, as fillin_rpath makes them."""
        for path in paths:
            directory = self.expanded(path, asker)
            if directory.startswith("/"):
                yield directory.rstrip("/") or "/"

    def _below(self, directories: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
        for directory in dict.fromkeys(directories):
            slashed = directory if directory == "/" else f"{directory}/"
            for hwcap in self.root.hwcaps:
                yield directory, f"{slashed}glibc-hwcaps/{hwcap}/{name}"
            yield directory, f"{slashed}{name}"

    def _verdict(self, located: Located) -> ElfFacts | _Skip | _Fatal:
        if not located.is_regular:
            return _Fatal(why="is no regular file")
        if not self.root.is_readable(located):
            return _Skip(why="cannot be read")
        try:
            facts = self.root.facts(located.file)
        except ElfError as error:
            return _Fatal(why=f"cannot be loaded: {error.message.partition(': ')[2]}")
        if Abi.of(facts) != self.abi:
            # musl takes the first file there is; glibc looks no further only if the class and the
            # machine could be right, but not the order of bytes
            is_final = self.loader.libc is Libc.MUSL or (
                facts.bits == self.abi.bits and facts.endianness is not self.abi.endianness
            )
            return (
                _Fatal(why=f"is for {Abi.of(facts)}") if is_final else _Skip(why=f"{Abi.of(facts)}")
            )
        if facts.type is FileType.EXEC:
            return _Fatal(why="is a program at a fixed address, which cannot be loaded")
        if facts.marked_pie and self.loader.libc is Libc.GLIBC:  # since 2.30; musl does not look
            return _Fatal(why="is a position-independent program, which cannot be loaded")
        if facts.linkage is Linkage.NONE:
            return _Fatal(why="has nothing to load: an object file, core or debug information")
        return facts


def searcher_of(loader: Loader, abi: Abi, root: LibraryRoot) -> Searcher:
    """The searcher of a process, with the root's cache, or its ld.so.conf if there is no cache.

    A cache that is out of date is used nevertheless, as ld.so does. Without any, ld.so would look
    in its own directories only; but a tree that was just unpacked has not seen ldconfig(8) yet.
    """
    return root.remembered((loader, abi), lambda: _searcher(loader, abi, root))


def _searcher(loader: Loader, abi: Abi, root: LibraryRoot) -> Searcher:
    has_any = loader.libc is Libc.GLIBC and root.has_ldconfig
    cache = ldcache.load(root, abi.endianness) if has_any else None
    configured = ldconf.directories(root) if has_any and cache is None else ()
    return Searcher(root=root, loader=loader, abi=abi, cache=cache, configured=configured)
