"""Drop-ins on their way into an image: what is taken, where it lies, what is refused."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.assembly import dropins, packages
from pipeline.builder.assembly.dropins import DropinError, Taken
from pipeline.builder.assembly.layer import Layer
from pipeline.builder.assembly.owners import owners
from pipeline.builder.recipes.image import Dropin, Package
from pipeline.builder.sources.unpack import SourceError
from pipeline.image.rootfs import Directory, File, Rootfs, Symlink
from pipeline.libraries import LibraryRoot, closure
from tests.support.images import file, header, tarball
from tests.support.tiny_libraries import GLIBC, Maker, Tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.image.rootfs import Entry

TRIPLE = "x86_64-linux-gnu"
SHARED = "cbin/dropin"
BASE = Rootfs.of(
    (
        Symlink(path="bin", target="cbin"),
        Directory(path="cbin"),
        File(path="cbin/busybox", content=b"\x7fELF box", mode=0o755),
        Symlink(path="cbin/sh", target="busybox"),
        Symlink(path="lib", target="usr/lib"),
        Directory(path="usr"),
        Symlink(path="usr/bin", target="../cbin"),
        Directory(path="usr/lib"),
        Directory(path="usr/local"),
        Directory(path="usr/local/bin"),
    )
)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def host(tmp_path: Path, maker: Maker) -> Tree:
    """A Debian-style build host, /usr merged, with one program."""
    made = Tree(path=tmp_path / "host")
    made.link("/bin", "usr/bin")
    made.link("/lib", "usr/lib")
    made.link("/lib64", "usr/lib64")
    made.link("/usr/lib64/ld-linux-x86-64.so.2", f"/lib/{TRIPLE}/ld-linux-x86-64.so.2")
    made.put(
        f"/usr/lib/{TRIPLE}/ld-linux-x86-64.so.2",
        maker.loader(f"/lib/{TRIPLE}", f"/usr/lib/{TRIPLE}", "/lib", "/usr/lib"),
    )
    made.put(f"/usr/lib/{TRIPLE}/liba.so.1.2", maker.library("liba.so.1"))
    made.link(f"/usr/lib/{TRIPLE}/liba.so.1", "liba.so.1.2")
    made.put("/usr/bin/p", maker.program("liba.so.1"))
    return made


def take(host: Tree, *tables: Mapping[str, object], base: Rootfs = BASE) -> Taken:
    """What is taken of *host*; a table lacks what it has in common with the others."""
    common = {"source": "/usr/bin/p", "target": "usr/local/bin/p", "libraries": "copy"}
    made = [Dropin.model_validate_json(json.dumps({**common, **table})) for table in tables]
    tree = dropins.Tree(root=LibraryRoot(path=host.path))
    return dropins.take(made, base, lambda _dropin: tree, architecture="x86_64")


def laid(taken: Taken, base: Rootfs = BASE) -> dict[str, Entry]:
    """The image with what was taken, by path."""
    return {entry.path: entry for entry in (*base, *taken.entries)}


def problems(host: Tree, *tables: dict[str, object], base: Rootfs = BASE) -> tuple[str, ...]:
    with pytest.raises(DropinError) as caught:
        take(host, *tables, base=base)
    return caught.value.problems


def target(taken: Taken, path: str) -> str:
    entry = laid(taken)[path]
    assert isinstance(entry, Symlink)
    return entry.target


def unpacked(taken: Taken, folder: Path, base: Rootfs = BASE) -> LibraryRoot:
    """The image on a disk."""
    layer = Layer(base)
    for entry in taken.entries:
        layer._added[entry.path] = entry
    layer.write_programs(folder)
    return LibraryRoot(path=folder, has_ldconfig=False)


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("usr/local/bin/p", f"/{SHARED}/usr/local/bin/p"),
        (f"usr/lib/{TRIPLE}", f"/{SHARED}/usr/lib/{TRIPLE}"),
        (f"{SHARED}/usr/lib/{TRIPLE}/liba.so.1", "liba.so.1.2"),
        ("lib64", "usr/lib64"),
        ("usr/lib64", f"/{SHARED}/usr/lib64"),
    ],
)
def test_copies_are_shared_and_linked_as_ld_so_expects(host: Tree, path: str, leads: str) -> None:
    assert target(take(host, {}), path) == leads


def test_an_instances_own_root_gets_links_only(host: Tree) -> None:
    own = [entry for entry in take(host, {}).entries if not entry.path.startswith("cbin/")]
    assert {type(entry) for entry in own} == {Symlink}


def test_program_finds_all_in_the_image(host: Tree, tmp_path: Path) -> None:
    root = unpacked(take(host, {}), tmp_path / "image")
    found = closure(PurePosixPath("/usr/local/bin/p"), root)
    assert (found.problems, [each.name for each in found.libraries]) == ((), ["liba.so.1"])


def test_two_programs_have_one_copy_of_a_library(host: Tree, maker: Maker) -> None:
    host.put("/usr/bin/q", maker.program("liba.so.1", runpath="/nowhere"))
    taken = take(host, {}, {"source": "/usr/bin/q", "target": "usr/local/bin/q"})
    files = [entry for entry in taken.entries if isinstance(entry, File)]
    assert len(files) == len({entry.content for entry in files}) == 4


def test_the_same_files_give_the_same_entries(host: Tree) -> None:
    assert take(host, {}).entries == take(host, {}).entries


@pytest.mark.parametrize("runpath", ["", "$ORIGIN/../lib/own"])
def test_library_of_an_unusual_directory_is_linked_where_ld_so_looks(
    host: Tree, maker: Maker, tmp_path: Path, runpath: str
) -> None:
    host.put("/usr/lib/own/libo.so", maker.library("libo.so"))
    host.put("/etc/ld.so.conf", "/usr/lib/own\n")
    host.put("/usr/bin/p", maker.program("libo.so", runpath=runpath))
    taken = take(host, {})
    assert target(taken, "usr/lib/libo.so") == f"/{SHARED}/usr/lib/own/libo.so"
    root = unpacked(taken, tmp_path / "image")
    assert closure(PurePosixPath("/usr/local/bin/p"), root).problems == ()


def test_bound_program_comes_alone_with_what_it_needs(host: Tree) -> None:
    taken = take(host, {"libraries": "bind"})
    (record,) = taken.records
    assert [entry.path for entry in taken.entries] == [
        "usr/local/bin/p",
        f"{SHARED}/usr/local/bin/p",
    ]
    (program,) = record.programs
    assert program.path == f"{SHARED}/usr/local/bin/p"
    assert (program.needs["interpreter"], program.needs["libraries"]) == (GLIBC, ["liba.so.1"])


def test_manifest_of_a_copy_has_facts_of_every_binary(host: Tree) -> None:
    (record,) = take(host, {}).records
    facts = {each.path: each.elf for each in record.files}
    own = facts[f"{SHARED}/usr/local/bin/p"]
    assert own is not None
    assert own["needed"] == ["liba.so.1"]
    assert len(facts) == 3


def test_missing_library_stops_a_copy(host: Tree) -> None:
    (host.path / f"usr/lib/{TRIPLE}/liba.so.1.2").unlink()
    (problem,) = problems(host, {})
    assert "/usr/bin/p: needs liba.so.1, which is not there; searched" in problem


def test_missing_library_of_the_build_host_is_no_matter_for_bind(host: Tree) -> None:
    (host.path / f"usr/lib/{TRIPLE}/liba.so.1.2").unlink()
    assert len(take(host, {"libraries": "bind"}).records) == 1


def test_all_problems_are_told_at_once(host: Tree) -> None:
    told = problems(
        host,
        {"source": "/usr/bin/absent"},
        {"target": "usr/local/bin/q", "files": ["/usr/share/absent"]},
        {"target": "bin/sh"},
    )
    assert [line.partition(": ")[0] for line in told] == [
        "usr/local/bin/p",
        "usr/local/bin/q",
        "/cbin/sh",
    ]


def test_program_of_another_machine_is_refused(host: Tree) -> None:
    tree = dropins.Tree(root=LibraryRoot(path=host.path))
    made = Dropin(source="/usr/bin/p", target="usr/local/bin/p", libraries="bind")
    with pytest.raises(DropinError, match="is for x86_64, the image for aarch64"):
        dropins.take([made], BASE, lambda _dropin: tree, architecture="aarch64")


def test_scripts_interpreter_comes_along_by_its_own_path(host: Tree) -> None:
    host.link("/usr/bin/awk", "p")
    host.put("/usr/bin/script", "#!/usr/bin/awk -f\n")
    taken = take(host, {"source": "/usr/bin/script", "target": "usr/local/bin/script"})
    assert target(taken, "cbin/awk") == "p"
    assert isinstance(laid(taken)["cbin/p"], File)


def test_interpreter_of_the_image_serves(host: Tree) -> None:
    host.put("/usr/bin/script", "#!/bin/sh\n")
    script = {"source": "/usr/bin/script", "target": "usr/local/bin/script", "libraries": "bind"}
    host.put("/usr/bin/sh", (host.path / "usr/bin/p").read_bytes())
    taken = take(host, script)
    assert (taken.records[0].programs, len(taken.entries)) == ((), 2)


def test_interpreter_that_comes_along_tells_what_it_needs(host: Tree) -> None:
    host.put("/usr/bin/script", "#!/usr/bin/env p\n")
    host.put("/usr/bin/env", (host.path / "usr/bin/p").read_bytes())
    script = {"source": "/usr/bin/script", "target": "usr/local/bin/script", "libraries": "bind"}
    programs = [program.path for program in take(host, script).records[0].programs]
    assert programs == ["cbin/p", "cbin/env"]


def test_data_come_along_without_caches(host: Tree) -> None:
    host.put("/usr/share/p/a/one.py", "1")
    host.put("/usr/share/p/a/__pycache__/one.pyc", "compiled")
    host.link("/usr/share/p/two.py", "a/one.py")
    host.link("/usr/share/p/start", "../../bin/p")
    taken = take(host, {"files": ["/usr/share/p"]})
    inside = sorted(
        entry.path.removeprefix(f"{SHARED}/usr/share/p/")
        for entry in taken.entries
        if entry.path.startswith(f"{SHARED}/usr/share/p/")
    )
    assert inside == ["a", "a/one.py", "start", "two.py"]
    assert target(taken, f"{SHARED}/usr/share/p/start") == "/usr/local/bin/p"
    assert target(taken, f"{SHARED}/usr/share/p/two.py") == "a/one.py"


def test_data_link_to_what_is_not_listed_becomes_the_file(host: Tree) -> None:
    host.put("/etc/p.conf", "setting\n")
    host.link("/usr/share/p/conf", "/etc/p.conf")
    taken = take(host, {"files": ["/usr/share/p"]})
    entry = laid(taken)[f"{SHARED}/usr/share/p/conf"]
    assert isinstance(entry, File)
    assert entry.content == b"setting\n"


def test_plugin_brings_its_libraries(host: Tree, maker: Maker) -> None:
    host.put(f"/usr/lib/{TRIPLE}/libplug.so", maker.library("libplug.so"))
    host.put("/usr/lib/p/plugin.so", maker.library("plugin.so", "libplug.so"))
    taken = take(host, {"files": ["/usr/lib/p"]})
    assert f"{SHARED}/usr/lib/{TRIPLE}/libplug.so" in laid(taken)


def test_bound_data_are_named_only(host: Tree) -> None:
    taken = take(host, {"libraries": "bind", "files": ["/usr/share/p"]})
    assert taken.records[0].data == ("/usr/share/p",)
    assert len(taken.entries) == 2


def test_sources_are_those_of_the_build_host(host: Tree) -> None:
    host.put("/usr/share/p/one", "1")
    names = {path.name for path in take(host, {"files": ["/usr/share/p"]}).sources}
    assert names == {"p", "one", "liba.so.1.2", "ld-linux-x86-64.so.2"}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"source": "usr/bin/p"}, "absolute path"),
        ({"target": "/usr/bin/p"}, "not a clean relative path"),
        ({"target": "../p"}, "not a clean relative path"),
        ({"libraries": "link"}, "'bind' or 'copy'"),
        ({"files": ["/a", "/a/b"]}, "is in /a already"),
        ({"libraries": "bind", "files": ["/a b"]}, "cannot be bound"),
    ],
)
def test_recipe_says_what_is_wrong(table: dict[str, object], told: str) -> None:
    common = {"source": "/usr/bin/p", "target": "usr/local/bin/p", "libraries": "copy"}
    with pytest.raises(ValueError, match=told):
        Dropin.model_validate_json(json.dumps({**common, **table}))


def deb(*members: bytes) -> bytes:
    """A Debian package with these members of its data.tar."""
    data = tarball(*members)
    head = f"{'data.tar':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
    return b"!<arch>\n" + head.encode() + data


def package(name: str) -> Package:
    table = {
        "name": name,
        "version": "1",
        "licence": "MIT",
        "source": {"file": "x.deb", "size": 1, "sha256": "0" * 64, "unsigned": "a fake one"},
        "location": [{"kind": "https", "url": "https://example.org/x.deb"}],
    }
    return Package.model_validate_json(json.dumps(table))


def test_packages_make_one_merged_tree(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(
        deb(header(b"./lib/", flag=b"5"), file(b"./lib/liba.so"), file(b"./both", b"first"))
    )
    (tmp_path / "b.deb").write_bytes(
        deb(header(b"./usr/", flag=b"5"), header(b"./usr/bin/", flag=b"5"), file(b"./usr/bin/p"))
    )
    tree = packages.unpacked(
        [package("aa"), package("bb")],
        lambda one: tmp_path / f"{one.name[0]}.deb",
        tmp_path / "tree",
    )
    assert (tmp_path / "tree/usr/lib/liba.so").is_file()
    of = tree.owners(["/usr/lib/liba.so", "/usr/bin/p", "/absent"])
    assert {path: owner.name for path, owner in of.items()} == {
        "/usr/lib/liba.so": "aa",
        "/usr/bin/p": "bb",
    }


def test_package_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"no package")
    with pytest.raises(SourceError, match="not a Debian package"):
        packages.unpacked([package("aa")], lambda _one: tmp_path / "a.deb", tmp_path / "tree")


DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"


@pytest.fixture
def dpkg(tmp_path: Path) -> Path:
    """A tree with dpkg's database of two packages, one listed as before /usr was merged."""
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "libc6:amd64.list").write_text("/.\n/lib\n/lib/libc.so.6\n")
    (info / "p.list").write_text("/.\n/usr/bin/p\n")
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: libc6\nArchitecture: amd64\nVersion: 2.36-9\n\nPackage: p\nVersion: 1:1.0\n\n"
    )
    for name, text in (
        ("p", f"{DEP5}\nFiles: *\nLicense: GPL-2+\n\nLicense: GPL-2+\n text\n\nLicense: MIT\n"),
        ("libc6", "This is glibc.\n"),
    ):
        folder = tmp_path / "usr/share/doc" / name
        folder.mkdir(parents=True)
        (folder / "copyright").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/usr/lib/libc.so.6", ("libc6", "2.36-9", "see /usr/share/doc/libc6/copyright")),
        ("/usr/bin/p", ("p", "1:1.0", "GPL-2+, MIT")),
        ("/usr/bin/q", None),
    ],
)
def test_dpkg_knows_the_owner(dpkg: Path, path: str, owner: tuple[str, ...] | None) -> None:
    found = owners([path], dpkg).get(path)
    assert (found and (found.name, found.version, found.licence)) == owner
