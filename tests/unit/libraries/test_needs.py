"""What a manifest records of a closure, held against another host; what to bind; the tree."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pipeline.libraries import (
    Kind,
    LibraryError,
    binding,
    check,
    directories,
    needs,
    requirements,
    resolve_needs,
)
from pipeline.libraries import (
    tree as drawing,
)
from pipeline.libraries.cpu import levels
from tests.support.tiny_libraries import GLIBC, Maker, Tree

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.libraries import Needs

TRIPLE = "x86_64-linux-gnu"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path, maker: Maker) -> Tree:
    return Tree.rpm_style(tmp_path / "root", maker)


@pytest.fixture
def debian(tmp_path: Path, maker: Maker) -> Tree:
    """A Debian-style tree, usr merged, with a library that has one of its own."""
    made = Tree(path=tmp_path / "debian")
    made.link("/lib", "usr/lib")
    made.link("/lib64", "usr/lib64")
    made.link("/usr/lib64/ld-linux-x86-64.so.2", f"/lib/{TRIPLE}/ld-linux-x86-64.so.2")
    own = ("/lib", "/usr/lib")
    made.put(
        f"/usr/lib/{TRIPLE}/ld-linux-x86-64.so.2",
        maker.loader(f"/lib/{TRIPLE}", f"/usr/lib/{TRIPLE}", *own),
    )
    libc = maker.library("libc.so.6", versions=("GLIBC_2.4", "GLIBC_2.36"))
    made.put(f"/usr/lib/{TRIPLE}/libc.so.6", libc)
    made.put(f"/usr/lib/{TRIPLE}/liba.so.1.2", maker.library("liba.so.1", "libown.so"))
    made.link(f"/usr/lib/{TRIPLE}/liba.so.1", "liba.so.1.2")
    made.put(f"/usr/lib/{TRIPLE}/libown.so", maker.library("libown.so", "libc.so.6@GLIBC_2.36"))
    made.put("/usr/bin/p", maker.program("liba.so.1", "libc.so.6@GLIBC_2.4"))
    return made


@pytest.fixture
def wanted(debian: Tree) -> Needs:
    return needs(debian.closure("/usr/bin/p"), program=PurePosixPath("/usr/local/bin/p"))


def test_needs_hold_no_path_of_the_host(debian: Tree, wanted: Needs) -> None:
    assert requirements.as_json(wanted) == {
        "program": "/usr/local/bin/p",
        "machine": "x86_64",
        "bits": 64,
        "endianness": "little",
        "interpreter": GLIBC,
        "libraries": ["liba.so.1", "libc.so.6"],
        "versions": {"libc.so.6": ["GLIBC_2.4"]},
        "rpath": [],
        "runpath": [],
        "no_default_directories": False,
    }


def test_needs_survive_json(wanted: Needs) -> None:
    text = json.dumps(requirements.as_json(wanted))
    assert requirements.from_json(json.loads(text)) == wanted


@pytest.mark.parametrize("change", [{"bits": "x"}, {"libraries": "abc"}, {"versions": []}])
def test_needs_of_another_form_are_refused(wanted: Needs, change: dict[str, object]) -> None:
    with pytest.raises(LibraryError, match="no record"):
        requirements.from_json(requirements.as_json(wanted) | change)


def test_the_host_it_was_taken_from_has_what_it_needs(debian: Tree, wanted: Needs) -> None:
    assert check(wanted, debian.root()) == ()


def test_another_host_with_other_paths_has_it(maker: Maker, tree: Tree, wanted: Needs) -> None:
    tree.put("/usr/lib64/liba.so.1", maker.library("liba.so.1"))
    tree.put("/usr/lib64/libc.so.6", maker.library("libc.so.6", versions=("GLIBC_2.4",)))
    assert check(wanted, tree.root()) == ()
    assert directories(resolve_needs(wanted, tree.root())) == (PurePosixPath("/usr/lib64"),)


def test_another_host_lacks_something(maker: Maker, tree: Tree, wanted: Needs) -> None:
    tree.put("/usr/lib64/liba.so.1", maker.library("liba.so.1", "libfar.so"))
    tree.put("/usr/lib64/libc.so.6", maker.library("libc.so.6", versions=("GLIBC_2.3",)))
    far, version = check(wanted, tree.root())
    assert (far.kind, far.needed_by, far.library, far.searched) == (
        *(Kind.MISSING, "/lib64/liba.so.1", "libfar.so", ("/lib64", "/usr/lib64")),
    )
    assert str(version) == (
        "/usr/local/bin/p: needs GLIBC_2.4 of libc.so.6, but /lib64/libc.so.6 has GLIBC_2.3"
        " at most; searched /lib64"
    )


def test_a_script_without_interpreter_has_no_needs(tree: Tree) -> None:
    tree.put("/tool", "#!/nope\n")
    with pytest.raises(LibraryError, match="/tool: there is no program to describe"):
        needs(tree.closure("/tool"))


# --- what to bind ---


def test_binding_of_a_multiarch_tree(debian: Tree) -> None:
    found = binding(debian.closure("/usr/bin/p"))
    assert found.directories == (PurePosixPath(f"/usr/lib/{TRIPLE}"),)
    assert found.files == ()
    assert [(str(link.path), link.target) for link in found.links] == [
        ("/lib", "usr/lib"),
        ("/lib64", "usr/lib64"),
        ("/usr/lib64/ld-linux-x86-64.so.2", f"/lib/{TRIPLE}/ld-linux-x86-64.so.2"),
    ]


def test_binding_of_an_rpm_style_tree(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", "b.so", runpath="/usr/lib64/deep"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    tree.put("/usr/lib64/deep/b.so", maker.library("b.so"))
    found = binding(tree.closure("/p"))
    assert found.directories == (PurePosixPath("/usr/lib64"),)
    assert [str(link.path) for link in found.links] == ["/lib64"]


def test_usr_lib_is_never_bound_as_a_whole(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so", "b.so", runpath="/usr/lib:/opt/own"))
    tree.put("/usr/lib/a.so", maker.library("a.so"))
    tree.put("/opt/own/b.so", maker.library("b.so"))
    found = binding(tree.closure("/p"))
    assert list(map(str, found.directories)) == ["/opt/own", "/usr/lib64"]
    assert list(map(str, found.files)) == ["/usr/lib/a.so"]


def test_a_link_by_way_of_another_directory_is_kept(maker: Maker, debian: Tree) -> None:
    debian.link(f"/usr/lib/{TRIPLE}/libb.so", "/etc/alternatives/libb.so")
    debian.link("/etc/alternatives/libb.so", f"/usr/lib/{TRIPLE}/blas/libb.so")
    debian.put(f"/usr/lib/{TRIPLE}/blas/libb.so", maker.library("libb.so"))
    debian.put("/q", maker.program("libb.so"))
    found = binding(debian.closure("/q"))
    assert found.directories == (PurePosixPath(f"/usr/lib/{TRIPLE}"),)
    assert "/etc/alternatives/libb.so" in [str(link.path) for link in found.links]


# --- the tree, and the CPU ---


def test_the_tree_tells_each_files_needs_once(debian: Tree) -> None:
    found = debian.closure("/usr/bin/p")
    told = [line[14:] for line in drawing.lines(found)]
    libc = f"libc.so.6 => /lib/{TRIPLE}/libc.so.6 (/usr/lib/{TRIPLE}/libc.so.6)"
    own = f"libown.so => /lib/{TRIPLE}/libown.so (/usr/lib/{TRIPLE}/libown.so)"
    assert told == [
        "/usr/bin/p",
        f"├── {GLIBC} (/usr/lib/{TRIPLE}/ld-linux-x86-64.so.2)",
        f"├── liba.so.1 => /lib/{TRIPLE}/liba.so.1 (/usr/lib/{TRIPLE}/liba.so.1.2)",
        f"│   └── {own}",
        f"│       └── {libc}",
        "└── libc.so.6",
        "bytes in 5 files",
    ]


def test_the_tree_ends_with_the_problems(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    *_, last = drawing.lines(tree.closure("/p"))
    assert last.startswith("problem: /p: needs a.so, which is not there; searched ")


def test_sizes_add_up(debian: Tree) -> None:
    found = debian.closure("/usr/bin/p")
    assert found.size == sum((debian.path / str(f.file)[1:]).stat().st_size for f in found.files())


def test_json_has_the_same(debian: Tree) -> None:
    plain = json.loads(json.dumps(drawing.as_json(debian.closure("/usr/bin/p"))))
    assert [each["name"] for each in plain["libraries"]] == ["liba.so.1", "libc.so.6", "libown.so"]
    assert plain["libraries"][0]["needs"] == [f"/lib/{TRIPLE}/libown.so"]


V2 = "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2"
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("fpu sse2", ()),
        (V2, ("x86-64-v2",)),
        (V3, ()),
        (f"{V2} {V3}", ("x86-64-v3", "x86-64-v2")),
    ],
)
def test_levels_of_a_cpu(flags: str, names: tuple[str, ...]) -> None:
    assert levels(flags.split()) == names
