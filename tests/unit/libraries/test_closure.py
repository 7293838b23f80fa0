"""What ld.so would load, rule by rule, in trees of tiny files; where it runs here, it agrees."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pipeline.libraries import Kind, LibraryError, LibraryRoot, closure
from pipeline.run import run
from tests.support.tiny_libraries import GLIBC, Maker, Tree, with_rpath, without_default_directories

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = Callable[[Maker, Tree, str], list[str]]


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path, maker: Maker) -> Tree:
    return Tree.rpm_style(tmp_path / "root", maker)


# --- rules of search, each in a tree and, where glibc's ld.so runs, against that ---


def runpath(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", runpath=f"{top}/no:{top}/x:{top}/y"))
    tree.put(f"{top}/x/a.so", maker.library("a.so"))
    tree.put(f"{top}/y/a.so", maker.library("a.so"))
    return [f"{top}/x/a.so"]


def runpath_is_not_inherited(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", runpath=f"{top}/x"))
    tree.put(f"{top}/x/a.so", maker.library("a.so", "b.so"))
    tree.put(f"{top}/x/b.so", maker.library("b.so"))
    return [f"{top}/x/a.so", "missing b.so"]


def rpath_is_inherited(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", with_rpath(maker.program("a.so", runpath=f"{top}/x")))
    tree.put(f"{top}/x/a.so", maker.library("a.so", "b.so"))
    tree.put(f"{top}/x/b.so", maker.library("b.so", "c.so"))
    tree.put(f"{top}/x/c.so", maker.library("c.so"))
    return [f"{top}/x/a.so", f"{top}/x/b.so", f"{top}/x/c.so"]


def rpath_of_the_nearest_loader_first(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", with_rpath(maker.program("a.so", runpath=f"{top}/x")))
    tree.put(f"{top}/x/a.so", with_rpath(maker.library("a.so", "b.so", runpath=f"{top}/y")))
    tree.put(f"{top}/x/b.so", maker.library("b.so"))
    tree.put(f"{top}/y/b.so", maker.library("b.so"))
    return [f"{top}/x/a.so", f"{top}/y/b.so"]


def runpath_hides_inherited_rpath(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", with_rpath(maker.program("a.so", runpath=f"{top}/x")))
    tree.put(f"{top}/x/a.so", maker.library("a.so", "b.so", runpath=f"{top}/y"))
    tree.put(f"{top}/x/b.so", maker.library("b.so"))
    return [f"{top}/x/a.so", "missing b.so"]


def origin_is_where_a_file_was_found(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/bin/p", maker.program("a.so", runpath="$ORIGIN/../x"))
    tree.link(f"{top}/x/a.so", "../real/a.so")
    tree.put(f"{top}/real/a.so", maker.library("a.so", "b.so", "c.so", runpath="${ORIGIN}/deep"))
    tree.put(f"{top}/real/deep/b.so", maker.library("b.so"))
    tree.put(f"{top}/x/deep/c.so", maker.library("c.so"))
    return [f"{top}/bin/../x/a.so", "missing b.so", f"{top}/bin/../x/deep/c.so"]


def unknown_tokens_stay(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", runpath=f"{top}/$ORIGINAL:{top}/$X"))
    tree.put(f"{top}/$ORIGINAL/a.so", maker.library("a.so"))
    return [f"{top}/$ORIGINAL/a.so"]


def needed_with_a_slash(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program(f"{top}/x/a.so", "$ORIGIN/x/b.so", "c.so"))
    tree.put(f"{top}/x/a.so", maker.library("c.so"))
    tree.put(f"{top}/x/b.so", maker.library("b.so"))
    return [f"{top}/x/a.so", f"{top}/x/b.so"]  # and c.so is the soname of the first


def breadth_first(maker: Maker, tree: Tree, top: str) -> list[str]:
    there = f"{top}/x"
    tree.put(f"{top}/p", maker.program("a.so", "b.so", runpath=there))
    tree.put(f"{there}/a.so", maker.library("a.so", "c.so", "b.so", runpath=there))
    tree.put(f"{there}/b.so", maker.library("b.so", "d.so", runpath=there))
    tree.put(f"{there}/c.so", maker.library("c.so"))
    tree.put(f"{there}/d.so", maker.library("d.so"))
    return [f"{there}/{name}.so" for name in "abcd"]


def cycle(maker: Maker, tree: Tree, top: str) -> list[str]:
    there = f"{top}/x"
    tree.put(f"{top}/p", maker.program("a.so", runpath=there))
    tree.put(f"{there}/a.so", maker.library("a.so", "b.so", runpath=there))
    tree.put(f"{there}/b.so", maker.library("b.so", "a.so", "b.so", runpath=there))
    return [f"{there}/a.so", f"{there}/b.so"]


def one_file_by_two_names(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", "b.so", runpath=f"{top}/x"))
    tree.put(f"{top}/x/a.so", maker.library(None))
    tree.link(f"{top}/x/b.so", "a.so")
    return [f"{top}/x/a.so"]


def one_soname_in_two_files(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", "b.so", runpath=f"{top}/x"))
    tree.put(f"{top}/x/a.so", maker.library("b.so"))
    tree.put(f"{top}/x/b.so", maker.library("b.so"))
    return [f"{top}/x/a.so"]


def other_class_is_passed_over(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", runpath=f"{top}/x:{top}/y:{top}/z"))
    tree.put(f"{top}/x/a.so", maker.library("a.so", target="x86-linux-gnu"))
    tree.put(f"{top}/y/a.so", maker.library("a.so", target="aarch64-linux-gnu"))
    tree.put(f"{top}/z/a.so", maker.library("a.so"))
    return [f"{top}/z/a.so"]


def directories_with_needless_slashes(maker: Maker, tree: Tree, top: str) -> list[str]:
    tree.put(f"{top}/p", maker.program("a.so", runpath=f":{top}//./x///:{top}/y"))
    tree.put(f"{top}/x/a.so", maker.library("a.so"))
    return [f"{top}//./x/a.so"]


CASES = [
    runpath,
    runpath_is_not_inherited,
    rpath_is_inherited,
    rpath_of_the_nearest_loader_first,
    runpath_hides_inherited_rpath,
    origin_is_where_a_file_was_found,
    unknown_tokens_stay,
    needed_with_a_slash,
    breadth_first,
    cycle,
    one_file_by_two_names,
    one_soname_in_two_files,
    other_class_is_passed_over,
    directories_with_needless_slashes,
]


def told(root: LibraryRoot, binary: str) -> list[str]:
    """Paths, and names of what is missing, as `loader_told` has them; each sorted by itself."""
    found = closure(PurePosixPath(binary), root)
    missing = [f"missing {each.library}" for each in found.problems]
    return [*(each.path for each in found.libraries), *sorted(missing)]


def loader_told(program: Path) -> list[str]:
    printed = run([GLIBC, program], env={"LD_TRACE_LOADED_OBJECTS": "1"}).stdout
    lines = [line.strip() for line in printed.splitlines()]
    paths = [m[1] for m in (re.search(r"(/\S+) \(0x", line) for line in lines) if m]
    # since 2.41 it lists itself even if nobody asks for it
    paths = [path for path in paths if path != GLIBC]
    missing = [m[1] for m in (re.match(r"(\S+) => not found", line) for line in lines) if m]
    return [*paths, *sorted(f"missing {name}" for name in missing)]


def in_order(expected: list[str]) -> list[str]:
    missing = [each for each in expected if each.startswith("missing ")]
    return [*(each for each in expected if each not in missing), *sorted(missing)]


def program_in(tree: Tree, top: str) -> str:
    return f"{top}/bin/p" if (tree.path / f"{top}/bin/p".lstrip("/")).exists() else f"{top}/p"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_rule_of_search(case: Case, maker: Maker, tree: Tree) -> None:
    expected = case(maker, tree, "/opt")
    assert told(tree.root(), program_in(tree, "/opt")) == in_order(expected)


@pytest.mark.skipif(not Path(GLIBC).exists(), reason="no glibc for x86_64 here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_this_systems_loader_agrees(case: Case, maker: Maker, tmp_path: Path) -> None:
    top = str(tmp_path)
    expected = in_order(case(maker, Tree(path=Path("/")), top))
    program = program_in(Tree(path=Path("/")), top)
    assert loader_told(Path(program)) == [each for each in expected if each != GLIBC]
    assert told(LibraryRoot(), program) == expected


# --- tokens, default directories, ld.so.conf ---


def test_lib_and_platform_come_from_the_loader_and_the_machine(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", runpath="/opt/$LIB/${PLATFORM}"))
    tree.put("/opt/lib64/x86_64/a.so", maker.library("a.so"))
    assert tree.paths("/p") == ["/opt/lib64/x86_64/a.so"]


def test_lib_of_a_multiarch_loader(maker: Maker, tmp_path: Path) -> None:
    tree = Tree(path=tmp_path)
    triple = "x86_64-linux-gnu"
    tree.put(GLIBC, maker.loader(f"/lib/{triple}", f"/usr/lib/{triple}", "/lib", "/usr/lib"))
    tree.put("/p", maker.program("a.so", "b.so", runpath="/opt/$LIB"))
    tree.put(f"/opt/lib/{triple}/a.so", maker.library("a.so"))
    tree.put(f"/usr/lib/{triple}/b.so", maker.library("b.so"))
    tree.put("/usr/lib/b.so", maker.library("b.so"))
    assert tree.paths("/p") == [f"/opt/lib/{triple}/a.so", f"/usr/lib/{triple}/b.so"]


def test_default_directories_are_those_compiled_into_the_loader(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.put("/lib/a.so", maker.library("a.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.paths("/p") == ["/lib64/a.so"]


def test_no_default_directories(maker: Maker, tree: Tree) -> None:
    tree.put("/p", without_default_directories(maker.program("a.so", "b.so")))
    tree.put("/etc/ld.so.conf", "/lib64\n/opt/lib\n")
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    tree.put("/opt/lib/b.so", maker.library("b.so"))
    assert told(tree.root(), "/p") == ["/opt/lib/b.so", "missing a.so"]


def test_conf_is_searched_before_the_default_directories(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.put("/etc/ld.so.conf", "# no\n/opt/lib/ # yes\n")
    tree.put("/opt/lib/a.so", maker.library("a.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    assert tree.paths("/p") == ["/opt/lib/a.so"]


def test_hwcaps_are_searched_only_for_a_cpu_that_has_them(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    for folder in ("", "glibc-hwcaps/x86-64-v2/", "glibc-hwcaps/x86-64-v3/"):
        tree.put(f"/usr/lib64/{folder}a.so", maker.library("a.so"))
    assert tree.paths("/p") == ["/lib64/a.so"]
    assert tree.paths("/p", "x86-64-v2") == ["/lib64/glibc-hwcaps/x86-64-v2/a.so"]
    assert tree.paths("/p", "x86-64-v3", "x86-64-v2") == ["/lib64/glibc-hwcaps/x86-64-v3/a.so"]


# --- roots ---


def test_absolute_links_restart_at_the_root(maker: Maker, tree: Tree) -> None:
    tree.put("/usr/bin/p", maker.program("a.so"))
    tree.link("/usr/lib64/a.so", "/usr/lib/private/a.so.1")
    tree.put("/usr/lib/private/a.so.1", maker.library("a.so"))
    (library,) = tree.closure("/usr/bin/p").libraries
    assert library.file == PurePosixPath("/usr/lib/private/a.so.1")
    assert [str(link.path) for link in library.links] == ["/lib64", "/usr/lib64/a.so"]


def test_a_link_does_not_lead_out_of_the_root(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    (tree.path.parent / "a.so").write_bytes(maker.library("a.so"))
    tree.link("/usr/lib64/a.so", "../../../a.so")
    assert [problem.kind for problem in tree.closure("/p").problems] == [Kind.MISSING]


def test_a_link_that_is_absolute_outside_finds_nothing(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    (tree.path.parent / "a.so").write_bytes(maker.library("a.so"))
    tree.link("/usr/lib64/a.so", str(tree.path.parent / "a.so"))
    assert [problem.kind for problem in tree.closure("/p").problems] == [Kind.MISSING]


def test_links_in_a_circle_find_nothing(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.link("/usr/lib64/a.so", "b.so")
    tree.link("/usr/lib64/b.so", "a.so")
    assert [problem.kind for problem in tree.closure("/p").problems] == [Kind.MISSING]


@pytest.mark.skipif(not Path(GLIBC).exists(), reason="no glibc for x86_64 here")
def test_an_rpm_style_tree_with_this_hosts_libc(maker: Maker, tmp_path: Path) -> None:
    program = maker.program("libc.so.6@GLIBC_2.2.5")
    (tmp_path / "p").write_bytes(program)
    tree = Tree(path=tmp_path / "root")
    tree.link("/lib64", "usr/lib64")
    for each in closure(PurePosixPath(tmp_path / "p"), LibraryRoot()).libraries:
        tree.put(f"/usr/lib64/{each.path.rpartition('/')[2]}", Path(each.file).read_bytes())
    tree.put("/etc/ld.so.conf", "/usr/lib64\n")
    tree.put("/usr/bin/p", program)
    assert tree.paths("/usr/bin/p") == ["/usr/lib64/libc.so.6", GLIBC]


def test_a_binary_that_is_not_there(tree: Tree) -> None:
    with pytest.raises(LibraryError, match="/nope: no such file"):
        tree.closure("/nope")


def test_a_static_program_needs_nothing(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.library(None))
    found = tree.closure("/p")
    assert (found.libraries, found.interpreter, found.problems) == ((), None, ())


def test_the_loader_is_listed_where_it_is_needed_by_name(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("ld-linux-x86-64.so.2"))
    assert tree.paths("/p") == [GLIBC]
