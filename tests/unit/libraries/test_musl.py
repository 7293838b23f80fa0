"""How musl's ld.so searches, which differs from glibc's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.libraries import Kind, Libc
from tests.support.tiny_libraries import MUSL, Maker, Tree, with_rpath

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path, maker: Maker) -> Tree:
    """An Alpine-style tree."""
    made = Tree(path=tmp_path)
    made.put(MUSL, maker.library("libc.so", text="musl libc (x86_64)"))
    return made


def program(maker: Maker, *needs: str, runpath: str = "") -> bytes:
    return maker.program(*needs, runpath=runpath, interpreter=MUSL)


def test_libc_is_the_interpreter_by_any_of_its_names(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "libc.musl-x86_64.so.1", "libpthread.so.0", "libm.so.6"))
    found = tree.closure("/p")
    assert (found.libc, [each.path for each in found.libraries]) == (Libc.MUSL, [MUSL])


def test_default_directories_in_order(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "a.so", "b.so", "c.so"))
    for place in ("lib/a", "usr/local/lib/a", "usr/local/lib/b", "usr/lib/b", "usr/lib/c"):
        tree.put(f"/{place}.so", maker.library(None))
    assert tree.paths("/p") == ["/lib/a.so", "/usr/local/lib/b.so", "/usr/lib/c.so"]


@pytest.mark.parametrize("text", ["/opt/x:/opt/y\n", "/opt/x\n/opt/y", "\n:/opt/x::/opt/y:"])
def test_directories_of_the_configuration_replace_them(maker: Maker, tree: Tree, text: str) -> None:
    tree.put("/etc/ld-musl-x86_64.path", text)
    tree.put("/p", program(maker, "a.so", "b.so"))
    tree.put("/opt/y/a.so", maker.library("a.so"))
    tree.put("/lib/b.so", maker.library("b.so"))
    (problem,) = tree.problems("/p")
    assert problem == "/p: needs b.so, which is not there; searched /opt/x, /opt/y"


def test_an_empty_configuration_means_no_search(maker: Maker, tree: Tree) -> None:
    tree.put("/etc/ld-musl-x86_64.path")
    tree.put("/p", program(maker, "a.so"))
    tree.put("/lib/a.so", maker.library("a.so"))
    assert tree.problems("/p") == ["/p: needs a.so, which is not there"]


def test_the_configuration_is_below_the_prefix_of_the_loader(maker: Maker, tree: Tree) -> None:
    interpreter = f"/opt/musl{MUSL}"
    tree.link(interpreter, MUSL)
    tree.put("/opt/musl/etc/ld-musl-x86_64.path", "/opt/x")
    tree.put("/p", maker.program("a.so", interpreter=interpreter))
    tree.put("/opt/x/a.so", maker.library("a.so"))
    assert tree.paths("/p") == ["/opt/x/a.so"]


@pytest.mark.parametrize("mark", [with_rpath, bytes])
def test_runpath_and_rpath_are_inherited_alike(maker: Maker, tree: Tree, mark: type) -> None:
    tree.put("/opt/bin/p", mark(program(maker, "a.so", runpath="$ORIGIN/../x")))
    tree.put("/opt/x/a.so", maker.library("a.so", "b.so", runpath="/opt/y"))
    tree.put("/opt/x/b.so", maker.library("b.so"))
    assert tree.paths("/opt/bin/p") == ["/opt/bin/../x/a.so", "/opt/bin/../x/b.so"]


def test_a_path_with_another_token_is_not_searched_at_all(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "a.so", runpath="/opt/x:/opt/$LIB"))
    tree.put("/opt/x/a.so", maker.library("a.so"))
    assert [problem.kind for problem in tree.closure("/p").problems] == [Kind.MISSING]


def test_a_library_is_known_by_its_file_name_only(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "a.so", "b.so"))
    tree.put("/lib/a.so", maker.library("b.so"))
    tree.put("/lib/b.so", maker.library("b.so"))
    assert tree.paths("/p") == ["/lib/a.so", "/lib/b.so"]


def test_the_first_file_is_final(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "a.so"))
    tree.put("/lib/a.so", maker.library("a.so", target="x86-linux-gnu"))
    tree.put("/usr/lib/a.so", maker.library("a.so"))
    assert tree.problems("/p") == [
        "/p: needs a.so, but /lib/a.so is for i686, 32 bits; searched /lib"
    ]


def test_symbol_versions_keep_no_program_from_starting(maker: Maker, tree: Tree) -> None:
    tree.put("/p", program(maker, "a.so@A_1"))
    tree.put("/lib/a.so", maker.library("a.so", versions=("A_2",)))
    assert tree.paths("/p") == ["/lib/a.so"]


def test_a_library_that_needs_musl_is_loaded_by_musl(maker: Maker, tree: Tree) -> None:
    tree.put("/usr/lib/a.so", maker.library("a.so", "libc.musl-x86_64.so.1"))
    assert tree.paths("/usr/lib/a.so") == [MUSL]
