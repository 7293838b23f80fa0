"""The closure of whatever execve(2) takes: a program, a library run by name, or a script."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from pipeline.elf import Linkage
from pipeline.libraries.loaded import Closure
from pipeline.libraries.problems import Kind, Problem
from pipeline.libraries.resolve import resolve
from pipeline.libraries.root import LibraryError
from pipeline.libraries.search import Asker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePosixPath

    from pipeline.libraries.root import LibraryRoot, Link, Located

_LONGEST_LINE = 256  # BINPRM_BUF_SIZE of the kernel
_MOST_SCRIPTS = 5  # exec_binprm of fs/exec.c
# Where `env` looks when nobody has set PATH to anything else.
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def closure(binary: PurePosixPath, root: LibraryRoot) -> Closure:
    """What the file *binary*, an absolute path inside *root*, needs to run; nothing is run.

    Everything that would keep it from starting is in the closure's problems, all at once. Raises
    LibraryError if *binary* is absent or cannot be run at all, ElfError if it is no sane ELF file.
    """
    name = str(binary)
    located = root.locate(name)
    if located is None or not located.is_regular:
        what = "no such file" if located is None else "no regular file"
        raise LibraryError(f"{name}: {what} (with {root.path} as /)")
    return _closure(located, binary=name, root=root, scripts=())


def _closure(
    located: Located, *, binary: str, root: LibraryRoot, scripts: tuple[str, ...]
) -> Closure:
    start = root.content(str(located.file), _LONGEST_LINE)
    if start is None:
        raise LibraryError(f"{located.file}: cannot be read")
    if start.startswith(b"#!"):
        return _script(start, binary=binary, root=root, scripts=(*scripts, str(located.file)))
    facts = root.facts(located.file)
    if facts.linkage is Linkage.NONE:
        raise LibraryError(
            f"{located.file}: an object file, core or debug information: nothing that can run"
        )
    # the kernel tells a process where its program is without links (/proc/self/exe)
    found = resolve(Asker(path=str(located.file), facts=facts), located, binary=binary, root=root)
    return _with(found, scripts=scripts)


def _with(
    found: Closure,
    *,
    scripts: tuple[str, ...] = (),
    links: tuple[Link, ...] = (),
    launchers: tuple[Closure, ...] = (),
    problems: tuple[Problem, ...] = (),
) -> Closure:
    return Closure(
        binary=found.binary,
        libc=found.libc,
        program=found.program,
        interpreter=found.interpreter,
        libraries=found.libraries,
        scripts=scripts or found.scripts,
        links=(*links, *found.links),
        launchers=(*launchers, *found.launchers),
        problems=(*problems, *found.problems),
    )


def _script(start: bytes, *, binary: str, root: LibraryRoot, scripts: tuple[str, ...]) -> Closure:
    """The first line names the interpreter and at most one argument (execve(2))."""
    line = start[2:].partition(b"\n")[0].decode(errors="replace").strip(" \t\0")
    command, _, argument = (part.strip() for part in line.replace("\t", " ").partition(" "))

    def ended(library: str, detail: str, searched: tuple[str, ...] = ()) -> Closure:
        problem = Problem(
            kind=Kind.INTERPRETER,
            binary=binary,
            needed_by=scripts[-1],
            library=library,
            searched=searched,
            detail=detail,
        )
        return Closure(binary=binary, libc=None, program=None, scripts=scripts, problems=(problem,))

    if len(scripts) > _MOST_SCRIPTS:
        return ended(command, f"is one of more than {_MOST_SCRIPTS} scripts that run each other")
    located = root.locate(command) if command.startswith("/") else None
    if located is None or not located.is_regular:
        return ended(command, "is not there")
    name = env_name(argument) if command.rpartition("/")[2] == "env" else None
    if name is None:
        found = _closure(located, binary=binary, root=root, scripts=scripts)
        return _with(found, links=located.links)
    launcher = _closure(located, binary=binary, root=root, scripts=())
    folders = (name.rpartition("/")[0],) if "/" in name else _PATH
    named = _first(folders, name.rpartition("/")[2], root)
    if named is None:
        found = ended(name, f"{command} does not find", folders)
    else:
        found = _closure(named, binary=binary, root=root, scripts=scripts)
    links = located.links if named is None else (*located.links, *named.links)
    return _with(found, links=links, launchers=(launcher,), problems=launcher.problems)


def _first(folders: Sequence[str], name: str, root: LibraryRoot) -> Located | None:
    located = (root.locate(f"{folder}/{name}") for folder in folders if folder.startswith("/"))
    return next((each for each in located if each is not None and each.is_regular), None)


def env_name(argument: str) -> str | None:
    """The program that `env` *argument* starts; None: none. Only -S makes words of it (env(1))."""
    words = [argument] if argument else []
    split = re.match(r"-[iv0]*S\s*|--split-string[= ]", argument)
    if split:
        try:
            words = shlex.split(argument[split.end() :])
        except ValueError:  # a quotation without end
            return None
    skip = False
    for word in words:
        if skip or word.startswith("-") or re.match(r"[A-Za-z_]\w*=", word):
            skip = not skip and word in ("-u", "-C", "--unset", "--chdir")
            continue
        return word
    return None
