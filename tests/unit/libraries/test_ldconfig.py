"""What ldconfig(8) leaves behind: ld.so.conf, ld.so.cache."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

import pytest

from pipeline.elf import Endianness
from pipeline.libraries import ldcache, ldconf
from pipeline.libraries.abi import Abi
from pipeline.run import ProgramError, run
from tests.support.tiny_libraries import Maker, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

ABI = Abi(machine="x86_64", bits=64, endianness=Endianness.LITTLE)
FLAGS, FLAGS_I386 = 0x303, 0x003


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker.below(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path, maker: Maker) -> Tree:
    return Tree.rpm_style(tmp_path / "root", maker)


def cache(
    entries: Sequence[tuple[str, str, int, int]], hwcaps: Sequence[str] = (), order: str = "<"
) -> bytes:
    """A cache of (soname, path, flags, hwcap) with these subdirectories of glibc-hwcaps."""
    strings, places = b"", {}
    for text in dict.fromkeys([*(t for e in entries for t in e[:2]), *hwcaps]):
        places[text] = 48 + 24 * len(entries) + len(strings)
        strings += text.encode() + b"\0"
    lines = b"".join(
        struct.pack(f"{order}iIIIQ", flags, places[name], places[path], 0, hwcap)
        for name, path, flags, hwcap in entries
    )
    strings += bytes(-len(strings) % 4)
    end = 48 + len(lines) + len(strings)
    head = ldcache._NEW_MAGIC + struct.pack(
        f"{order}IIB3xI12x", len(entries), len(strings), 2 if order == "<" else 3, end
    )
    extension = struct.pack(f"{order}II", ldcache._EXTENSION_MAGIC, 1)
    extension += struct.pack(f"{order}IIII", 1, 0, end + 24, 4 * len(hwcaps))
    extension += struct.pack(f"{order}{len(hwcaps)}I", *(places[name] for name in hwcaps))
    return head + lines + strings + extension


def extended(index: int, isa: int = 0) -> int:
    return (1 << 62) | (isa << 32) | index


def lookup(content: bytes, name: str, *hwcaps: str, abi: Abi = ABI) -> str | None:
    found = ldcache.parse(content, abi.endianness)
    assert found is not None
    return found.lookup(name, abi, hwcaps)


PLAIN = [("a.so", "/x/a.so", FLAGS, 0), ("b.so", "/x/b.so", FLAGS, 0)]


def test_the_path_of_a_soname() -> None:
    assert lookup(cache(PLAIN), "b.so") == "/x/b.so"


def test_a_soname_that_is_not_there() -> None:
    assert lookup(cache(PLAIN), "c.so") is None


def test_behind_a_cache_in_the_older_format() -> None:
    old = ldcache._OLD_MAGIC + b"\0" + struct.pack("<I", 1) + bytes(12) + bytes(4)
    assert len(old) % 8 == 0
    assert lookup(old + cache(PLAIN), "b.so") == "/x/b.so"


def test_an_entry_for_another_machine_is_passed_over() -> None:
    entries = [("a.so", "/i386/a.so", FLAGS_I386, 0), ("a.so", "/x/a.so", FLAGS, 0)]
    assert lookup(cache(entries), "a.so") == "/x/a.so"
    i686 = Abi(machine="i686", bits=32, endianness=Endianness.LITTLE)
    assert lookup(cache(entries), "a.so", abi=i686) == "/i386/a.so"


def test_the_best_subdirectory_that_the_cpu_can_use() -> None:
    names = ["x86-64-v2", "x86-64-v3"]
    entries = [
        ("a.so", "/v2/a.so", FLAGS, extended(0, isa=2)),
        ("a.so", "/v3/a.so", FLAGS, extended(1, isa=4)),
        ("a.so", "/x/a.so", FLAGS, 0),
    ]
    content = cache(entries, names)
    assert lookup(content, "a.so") == "/x/a.so"
    assert lookup(content, "a.so", "x86-64-v2") == "/v2/a.so"
    assert lookup(content, "a.so", "x86-64-v3", "x86-64-v2") == "/v3/a.so"


def test_an_entry_of_the_older_hwcaps_is_passed_over() -> None:
    entries = [("a.so", "/tls/a.so", FLAGS, 1 << 63), ("a.so", "/x/a.so", FLAGS, 0)]
    assert lookup(cache(entries), "a.so") == "/x/a.so"


def test_a_cache_of_the_other_order_of_bytes() -> None:
    assert ldcache.parse(cache(PLAIN, order=">"), Endianness.LITTLE) is None
    found = ldcache.parse(cache(PLAIN, order=">"), Endianness.BIG)
    assert found is not None
    assert [entry.path for entry in found.entries["a.so"]] == ["/x/a.so"]


@pytest.mark.parametrize("content", [b"", b"ld.so-1.7.0\0", b"x" * 100, cache(PLAIN)[:60]])
def test_what_is_no_cache_is_none(content: bytes) -> None:
    assert ldcache.parse(content, Endianness.LITTLE) is None


def test_a_damaged_cache_is_read_in_part_or_none_at_all() -> None:
    whole, dice = cache(PLAIN, ["x86-64-v2"]), random.Random(1)  # noqa: S311 (the same each time)
    found = []
    for _ in range(2000):
        content = bytearray(whole)
        content[dice.randrange(20, len(content))] = dice.randrange(256)
        cut = bytes(content[: dice.randrange(20, len(content))])
        found.append(ldcache.parse(cut, Endianness.LITTLE))
    assert {type(one) for one in found} == {NoneType, ldcache.Cache}


def test_this_systems_cache_as_ldconfig_prints_it() -> None:
    place = Path(ldcache.PATH)
    try:
        printed = run(["ldconfig", "-p"]).stdout
    except ProgramError:
        pytest.skip("no ldconfig here")
    found = ldcache.parse(place.read_bytes(), Endianness.LITTLE) if place.exists() else None
    if found is None:
        pytest.skip("no cache of this kind here")
    mine = sorted(f"{name} {e.path}" for name in found.entries for e in found.entries[name])
    lines = [line.strip() for line in printed.splitlines() if " => " in line]
    assert mine == sorted(f"{line.split(' ')[0]} {line.split(' => ')[1]}" for line in lines)


# --- in a tree ---


def test_the_cache_is_used_instead_of_the_configuration(maker: Maker, tree: Tree) -> None:
    tree.put("/p", maker.program("a.so"))
    tree.put("/etc/ld.so.conf", "/opt/conf\n")
    tree.put("/opt/conf/a.so", maker.library("a.so"))
    tree.put("/opt/cache/a.so", maker.library("a.so"))
    tree.put("/etc/ld.so.cache", cache([("a.so", "/opt/cache/a.so", FLAGS, 0)]))
    assert tree.paths("/p") == ["/opt/cache/a.so"]


def test_a_cache_that_is_out_of_date_sends_to_the_default_directories(
    maker: Maker, tree: Tree
) -> None:
    tree.put("/p", maker.program("a.so", "b.so"))
    tree.put("/usr/lib64/a.so", maker.library("a.so"))
    tree.put("/etc/ld.so.cache", cache([("a.so", "/opt/gone/a.so", FLAGS, 0)]))
    assert tree.problems("/p") == [
        "/p: needs b.so, which is not there; searched /etc/ld.so.cache, /lib64, /usr/lib64"
    ]


def test_includes_are_sorted_and_relative_to_their_file(tree: Tree) -> None:
    tree.put(
        "/etc/ld.so.conf", "/first\ninclude ld.so.conf.d/*.conf /opt/one*\n/last/ \nhwcap 0 x\n"
    )
    tree.put("/etc/ld.so.conf.d/b.conf", "/b\n/first")
    tree.put("/etc/ld.so.conf.d/a.conf", "  /a/with space\n")
    tree.put("/etc/ld.so.conf.d/.hidden.conf", "/hidden\n")
    tree.put("/etc/ld.so.conf.d/other", "/other\n")
    tree.put("/opt/one.conf", "/one\n")
    expected = ("/first", "/a/with space", "/b", "/one", "/last")
    assert ldconf.directories(tree.root()) == expected


def test_a_file_that_includes_itself_ends(tree: Tree) -> None:
    tree.put("/etc/ld.so.conf", "/a\ninclude /etc/ld.so.conf\n/b\n")
    assert ldconf.directories(tree.root()) == ("/a", "/b")


def test_an_include_follows_links_inside_the_root_only(tree: Tree) -> None:
    tree.put("/etc/ld.so.conf", "include /etc/d/*\n")
    tree.link("/etc/d", "/opt/d")
    tree.put("/opt/d/a", "/inside\n")
    (tree.path.parent / "outside").write_text("/outside\n")
    tree.link("/opt/d/b", "../../../outside")
    assert ldconf.directories(tree.root()) == ("/inside",)


def test_no_configuration_means_no_directories(tree: Tree) -> None:
    assert ldconf.directories(tree.root()) == ()
