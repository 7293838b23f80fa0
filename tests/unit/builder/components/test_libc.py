"""The C library that every link takes, and the compiler as a build finds it on its PATH."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pipeline import elf
from pipeline.builder.components import gate, libc, toolchain
from pipeline.builder.components.slots import Slots
from pipeline.paths import PROJECT
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Compile = Callable[..., bytes]

USERS = """\
#include <math.h>
#include <pwd.h>
#include <stdio.h>
int main(int n, char **words)
{
	struct passwd *root = getpwnam("root");
	printf("%s %.3Lf %d\\n", root ? root->pw_name : "-", sqrtl(n * 2.0L), (int)sizeof words);
	return 0;
}
"""
pytestmark = pytest.mark.timeout(300)  # musl is compiled, where that is not done yet

SAID = "root 1.414 8\n"
ROOMY = gate.Budget(max_file=10**6, max_text=10**6)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build finds on its PATH, for this machine and with the musl of builds."""
    folder = tmp_path_factory.mktemp("a folder, with blanks")
    found = toolchain.find(os.uname().machine)
    cache = PROJECT / "artifacts" / "cache" / "musl"
    cache.mkdir(parents=True, exist_ok=True)
    with Slots() as slots:
        sysroot_of = partial(libc.provide, found, cache=cache, slots=slots, log=folder / "log")
        found.install(folder / "tools", folder, sysroot_of)
    return folder / "tools"


def linked(tools: Path, *options: str) -> Path:
    """A program of USERS."""
    source, program = tools.parent / "users.c", tools.parent / "users"
    source.write_text(USERS)
    run([tools / "cc", *options, source, "-o", program], env={"PATH": "/usr/bin:/bin"})
    return program


@pytest.mark.parametrize("options", ["-s", "-O2 -fomit-frame-pointer", "-flto -s", "-lm -lcrypt"])
def test_programs_run_however_they_are_linked(tools: Path, options: str) -> None:
    assert run([linked(tools, *options.split())]).stdout == SAID


def test_a_program_has_only_what_it_needs(tools: Path) -> None:
    assert linked(tools, "-s").stat().st_size < 60_000


def test_a_program_passes_the_gate_as_it_is(tools: Path) -> None:
    content = linked(tools, "-s").read_bytes()
    facts = elf.parse(content, "users")
    assert gate.problems(facts, content, name="users", limits=ROOMY) == ()


def test_no_library_of_the_system_is_looked_at(tools: Path) -> None:
    words: list[str | Path] = [tools / "cc", "-###", "-x", "c", "/dev/null", "-o", "none"]
    told = run(words, env={"PATH": "/usr/bin:/bin"}).stderr
    searched = [word.strip('"') for word in told.split() if word.startswith('"-L')]
    assert searched
    assert all(str(PROJECT) in word for word in searched), told


def test_objects_are_joined_without_a_library(tools: Path) -> None:
    joined = tools.parent / "joined.o"
    words: list[str | Path] = [tools / "cc", "-nostdlib", "-r", "-x", "c", "/dev/null"]
    words += ["-o", joined]
    run(words, env={"PATH": "/usr/bin:/bin"})
    assert joined.stat().st_size < 2000


def test_a_machine_s_own_files_are_in_place_of_the_general_ones(tmp_path: Path) -> None:
    for name in ("a/one.c", "a/two.c", "a/mine/two.s", "a/other/one.s", "b/two.c", "b/note.h"):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert libc.sources(tmp_path, "mine") == ("src/a/mine/two.s", "src/a/one.c", "src/b/two.c")


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "no record"])
def test_a_damaged_library_is_not_taken(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / libc.LIBRARIES
    folder.mkdir(parents=True)
    (folder / "libc.a").write_bytes(b"!<arch>\n")
    (tmp_path / libc.RECORD).write_text(json.dumps(libc._sums(folder)))
    assert libc._is_whole(tmp_path)
    match damage:
        case "cut":
            (folder / "libc.a").write_bytes(b"")
        case "gone":
            (folder / "libc.a").unlink()
        case "more":
            (folder / "libm.a").touch()
        case _:
            (tmp_path / libc.RECORD).unlink()
    assert not libc._is_whole(tmp_path)


def test_what_does_not_compile_is_told_with_its_target(tmp_path: Path) -> None:
    found = toolchain.find("none_such")
    expected = "musl for none_such-linux-musl does not compile: "
    with Slots() as slots, pytest.raises(libc.LibcError, match=expected):
        libc.provide(found, found.target, tmp_path, slots=slots, log=tmp_path / "log")
    assert {path.name for path in tmp_path.iterdir()} == {"log", "none_such-linux-musl.lock"}
