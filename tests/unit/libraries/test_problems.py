"""Why a program would not start: each reason is one clear sentence, and all come at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.elf import ElfError
from pipeline.libraries import Kind, LibraryError
from pipeline.libraries.program import env_name
from tests.support.tiny_libraries import GLIBC, Maker, Tree

if TYPE_CHECKING:
    from pathlib import Path

SEARCHED = "searched /opt/x, /lib64, /usr/lib64"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path, maker: Maker) -> Tree:
    return Tree.rpm_style(tmp_path / "root", maker)


def test_a_missing_library(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    assert tree.problems("/p") == [f"/p: needs a.so, which is not there; {SEARCHED}"]


def test_a_missing_library_of_a_library(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so", "b.so"))
    assert tree.problem("/p") == (
        "/p: needs b.so (for /lib64/a.so), which is not there; searched /lib64, /usr/lib64"
    )


def test_a_library_for_another_machine_only(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    tree.put("/opt/x/a.so", maker.library("a.so", target="aarch64-linux-gnu"))
    tree.put("/usr/lib64/a.so", maker.library("a.so", target="x86-linux-gnu"))
    assert tree.problem("/p") == (
        "/p: needs a.so, but there is only /opt/x/a.so (aarch64, 64 bits),"
        f" /lib64/a.so (i686, 32 bits), /usr/lib64/a.so (i686, 32 bits); {SEARCHED}"
    )


def test_a_file_that_is_no_library_ends_the_search(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    tree.put("/opt/x/a.so", "GROUP ( a.so.1 )\n")
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.problem("/p") == (
        "/p: needs a.so, but /opt/x/a.so cannot be loaded: not an ELF file:"
        " starts with 'GROUP ( a.so.1 )'; searched /opt/x"
    )


def test_a_directory_in_a_librarys_place(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    tree.put("/opt/x/a.so/file")
    assert tree.problem("/p") == (
        "/p: needs a.so, but /opt/x/a.so is no regular file; searched /opt/x"
    )


def test_a_program_is_no_library(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    tree.put("/opt/x/a.so", maker.program())
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.problem("/p") == (
        "/p: needs a.so, but /opt/x/a.so is a position-independent program,"
        " which cannot be loaded; searched /opt/x"
    )


def test_the_other_order_of_bytes_ends_the_search(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/x"))
    tree.put("/opt/x/a.so", maker.library("a.so", target="aarch64_be-linux-gnu"))
    assert tree.problem("/p") == (
        "/p: needs a.so, but /opt/x/a.so is for aarch64_be, 64 bits; searched /opt/x"
    )


def test_a_missing_symbol_version(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("libc.so.6@GLIBC_2.38"))
    tree.put(
        "/usr/lib64/libc.so.6", maker.library("libc.so.6", versions=("GLIBC_2.4", "GLIBC_2.36"))
    )
    assert tree.problem("/p") == (
        "/p: needs GLIBC_2.38 of libc.so.6, but /lib64/libc.so.6 has GLIBC_2.36 at most;"
        " searched /lib64"
    )


def test_a_missing_symbol_version_for_a_library(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so", "b.so@B_3"))
    tree.put("/usr/lib64/b.so", maker.library("b.so", versions=("C_3",)))
    assert tree.problem("/p") == (
        "/p: needs B_3 of b.so (for /lib64/a.so), but /lib64/b.so has no version like it;"
        " searched /lib64"
    )


def test_a_library_without_versions_is_tolerated(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so@A_1"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.problems("/p") == []


def test_versions_of_a_missing_library_are_not_told_as_well(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so@A_1"))
    assert [problem.kind for problem in tree.closure("/p").problems] == [Kind.MISSING]


def test_all_problems_come_at_once(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so@A_1", "b.so", "c.so", interpreter="/lib/nope.so.1"))
    tree.put("/lib/x86_64-linux-gnu/none")
    tree.put("/lib64/a.so", maker.library("a.so", versions=("A_2",)))
    tree.put("/lib64/b.so", maker.library("b.so", target="x86-linux-gnu"))
    assert [problem.kind for problem in tree.closure("/p").problems] == [
        *(Kind.INTERPRETER, Kind.MACHINE, Kind.MISSING, Kind.VERSION),
    ]


def test_the_interpreter_is_missing(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", interpreter="/lib/ld-linux.so.2"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.problem("/p") == (
        "/p: needs the interpreter /lib/ld-linux.so.2, which is not there; searched /lib"
    )


def test_the_interpreter_is_for_another_machine(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", interpreter="/lib/ld.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    tree.put("/lib/ld.so", maker.library("ld.so", target="aarch64-linux-gnu"))
    assert tree.problem("/p") == (
        "/p: needs the interpreter /lib/ld.so, which is for aarch64, 64 bits; searched /lib"
    )


def test_an_object_file_has_no_closure(tree: Tree) -> None:
    tree.put("/p.o", "int x;")
    with pytest.raises(ElfError, match="not an ELF file"):
        tree.closure("/p.o")


def test_a_directory_has_no_closure(tree: Tree) -> None:
    with pytest.raises(LibraryError, match="/usr: no regular file"):
        tree.closure("/usr")


# --- scripts ---


def test_a_script_needs_its_interpreter(maker: Maker, tree: Tree) -> None:
    tree.put("/usr/bin/tool", "#! /usr/bin/sh -e\n")
    tree.link("/usr/bin/sh", "dash")
    tree.put("/usr/bin/dash", maker.program("a.so"))
    tree.put("/lib64/a.so", maker.library("a.so"))
    found = tree.closure("/usr/bin/tool")
    assert found.program is not None
    assert (found.binary, found.scripts, found.program.path, len(found.libraries)) == (
        *("/usr/bin/tool", ("/usr/bin/tool",), "/usr/bin/dash", 1),
    )


def test_the_problems_of_an_interpreter_name_the_script(maker: Maker, tree: Tree) -> None:
    tree.put("/tool", "#!/sh\n")
    tree.put("/sh", maker.program("a.so", runpath="/opt/x"))
    assert tree.problem("/tool") == (f"/tool: needs a.so (for /sh), which is not there; {SEARCHED}")


def test_the_interpreter_of_a_script_is_missing(tree: Tree) -> None:
    tree.put("/tool", "#!/usr/bin/sh\n")
    assert tree.problem("/tool") == ("/tool: needs the interpreter /usr/bin/sh, which is not there")


@pytest.mark.parametrize("line", ["#!", "#! \t\n", "#!\necho"])
def test_a_script_that_names_no_interpreter(tree: Tree, line: str) -> None:
    tree.put("/tool", line)
    assert tree.problem("/tool") == "/tool: has a first line that names no interpreter"


def test_env_is_needed_as_well_as_what_it_starts(maker: Maker, tree: Tree) -> None:
    tree.put("/tool", "#!/usr/bin/env -S X=1 perl -w\n")
    tree.put("/usr/bin/env", maker.program("ld-linux-x86-64.so.2"))
    tree.put("/bin/perl", maker.program("a.so", runpath="/opt/x"))
    found = tree.closure("/tool")
    assert found.program is not None
    assert [each.path for each in found.files()] == ["/bin/perl", GLIBC, "/usr/bin/env"]
    assert [problem.library for problem in found.problems] == ["a.so"]


def test_env_does_not_find_the_program(maker: Maker, tree: Tree) -> None:
    tree.put("/tool", "#!/usr/bin/env perl\n")
    tree.put("/usr/bin/env", maker.program("ld-linux-x86-64.so.2"))
    (problem,) = tree.problems("/tool")
    assert problem.startswith(
        "/tool: needs the interpreter perl, which /usr/bin/env does not find;"
        " searched /usr/local/sbin, /usr/local/bin,"
    )


def test_scripts_that_run_each_other_end(tree: Tree) -> None:
    tree.put("/a", "#!/b\n")
    tree.put("/b", "#!/a\n")
    (problem,) = tree.problems("/a")
    assert "is one of more than 5 scripts that run each other" in problem


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("", None),
        ("perl", "perl"),
        ("perl -w", "perl -w"),  # the kernel gives one argument
        ("-S perl -w", "perl"),
        ("-iS perl", "perl"),
        ("-S -u HOME A=b -i perl", "perl"),
        ("--split-string=perl -w", "perl"),
        ("-S 'perl", None),
        ("-i", None),
    ],
)
def test_what_env_starts(argument: str, name: str | None) -> None:
    assert env_name(argument) == name
