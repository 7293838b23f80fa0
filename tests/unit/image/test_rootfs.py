"""Root filesystems as values: what is refused, what the digest covers, where paths lead."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.image.rootfs import Directory, Entry, File, Rootfs, RootfsError, Symlink
from tests.support.images import rootfses

if TYPE_CHECKING:
    from random import Random

D, F, L = Directory, File, Symlink


def problems(*entries: Entry) -> tuple[str, ...]:
    with pytest.raises(RootfsError) as caught:
        Rootfs.of(entries)
    return caught.value.problems


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/./b", "../a", "a\0b"]
)
def test_a_path_that_is_not_clean(path: str) -> None:
    assert any("clean relative path" in line for line in problems(F(path=path, content=b"")))


@pytest.mark.parametrize("path", ["a\nb", "a\x1b[0m", "a\u202eb", "\udcff", "a\x7f"])
def test_a_path_that_cannot_be_printed(path: str) -> None:
    lines = problems(F(path=path, content=b""))
    assert lines == (f"{path!r}: characters that cannot be printed",)


def test_a_problem_can_always_be_printed() -> None:
    assert all(line.isprintable() for line in problems(F(path="\udcff/\n", content=b"", uid=-1)))


@pytest.mark.parametrize("path", ["n" * 256, "é" * 128, "a/" + "n" * 256])
def test_a_name_longer_than_linux_takes(path: str) -> None:
    assert any("longer than 255" in line for line in problems(D(path="a"), D(path=path)))


def test_the_longest_name_there_can_be() -> None:
    assert len(Rootfs.of([D(path="é" * 127 + "n")])) == 1


@pytest.mark.parametrize("other", [F(path="a", content=b""), D(path="a"), L(path="a", target="b")])
def test_a_path_that_stands_there_twice(other: Entry) -> None:
    assert problems(D(path="a"), other) == ("a: stands there twice",)


def test_a_missing_parent() -> None:
    assert problems(F(path="a/b", content=b"")) == ("a/b: its parent a is missing",)


@pytest.mark.parametrize("parent", [F(path="a", content=b""), L(path="a", target="d")])
def test_a_parent_that_is_no_directory(parent: Entry) -> None:
    lines = problems(parent, D(path="d"), F(path="a/b", content=b""))
    assert lines == ("a/b: its parent a is not a directory",)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6000, 0o10755, -1])
def test_a_mode_with_setuid_or_worse(mode: int) -> None:
    assert "a: mode" in problems(F(path="a", content=b"", mode=mode))[0]


def test_sticky_is_no_setuid() -> None:
    assert len(Rootfs.of([D(path="tmp", mode=0o1777)])) == 1


@pytest.mark.parametrize(("uid", "gid"), [(65536, 0), (0, 65536), (-1, 0), (0, -1)])
def test_an_owner_outside_the_user_range(uid: int, gid: int) -> None:
    assert problems(D(path="a", uid=uid, gid=gid)) == (f"a: owner {uid}:{gid} is outside 0-65535",)


@pytest.mark.parametrize(
    "target", ["..", "../b", "x/../../b", "./../b", "/..", "/../b", "/x/../../b"]
)
def test_a_link_out_of_the_root(target: str) -> None:
    assert problems(L(path="a", target=target)) == (
        f"a: link target {target} leaves the root, or may",
    )


@pytest.mark.parametrize("target", ["", "a\nb", "\x1b", "\udcff", "n" * 4096])
def test_a_target_that_linux_or_people_cannot_take(target: str) -> None:
    assert problems(L(path="a", target=target))[0].startswith("a: link target")


@pytest.mark.parametrize("target", ["/etc", "../x", "d/..", "y/", "../d/./x", "/d/../x", "."])
def test_a_link_that_stays_inside(target: str) -> None:
    assert len(Rootfs.of([D(path="d"), L(path="d/a", target=target)])) == 2


def test_a_way_out_over_another_link() -> None:
    up = L(path="a/b/up", target="../..")
    lines = problems(D(path="a"), D(path="a/b"), up, L(path="x", target="a/b/up/../y"))
    assert lines == ("x: link target a/b/up/../y leaves the root, or may",)


def test_all_problems_at_once() -> None:
    lines = problems(
        F(path="/a", content=b"", mode=0o4755),
        D(path="b", uid=-1),
        D(path="b"),
        L(path="c", target="../d"),
        F(path="e/f", content=b""),
    )
    assert len(lines) == 6


@given(rootfses(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_given_does_not_matter(rootfs: Rootfs, chance: Random) -> None:
    mixed = list(rootfs)
    chance.shuffle(mixed)
    assert Rootfs.of(mixed) == rootfs


@given(rootfses())
@settings(max_examples=50, deadline=None)
def test_parents_come_first(rootfs: Rootfs) -> None:
    seen = {""}
    for entry in rootfs:
        assert entry.path.rpartition("/")[0] in seen
        seen.add(entry.path)


FILE = F(path="a", content=b"x", mode=0o644, uid=1, gid=2)
LINK = L(path="a", target="b", uid=1, gid=2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FILE, replace(FILE, path="b")),
        (FILE, replace(FILE, content=b"y")),
        (FILE, replace(FILE, mode=0o600)),
        (FILE, replace(FILE, uid=3)),
        (FILE, replace(FILE, gid=3)),
        (FILE, replace(FILE, uid=2, gid=1)),
        (LINK, replace(LINK, path="b")),
        (LINK, replace(LINK, target="c")),
        (LINK, replace(LINK, uid=3)),
        (LINK, replace(LINK, gid=3)),
        (D(path="a"), D(path="b")),
        (D(path="a"), D(path="a", mode=0o700)),
        (D(path="a"), D(path="a", uid=1)),
        (D(path="a"), D(path="a", gid=1)),
        (D(path="a"), F(path="a", content=b"", mode=0o755)),
        (D(path="a", mode=0o777), L(path="a", target="b")),
    ],
)
def test_the_digest_changes_with_each_field(one: Entry, other: Entry) -> None:
    assert Rootfs.of([one]).digest != Rootfs.of([other]).digest


def test_the_digest_is_the_same_on_every_machine() -> None:
    digest = Rootfs.of([FILE, D(path="d"), L(path="é", target="d")]).digest
    assert digest == "bff79537c75258ba51d792909639c136690802af9185f1feac370652ca366998"


TREE = Rootfs.of(
    [
        D(path="cbin"),
        F(path="cbin/busybox", content=b"!"),
        L(path="cbin/sh", target="busybox"),
        L(path="cbin/abs", target="/cbin/sh"),
        L(path="bin", target="cbin"),
        D(path="usr"),
        L(path="usr/bin", target="../cbin"),
        L(path="usr/up", target=".."),
        L(path="usr/root", target="/"),
        L(path="round", target="about"),
        L(path="about", target="round"),
        L(path="self", target="self/x"),
        L(path="dangling", target="nothing"),
        L(path="filedot", target="cbin/busybox/"),
    ]
)


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("cbin/busybox", "cbin/busybox"),
        ("/cbin/busybox", "cbin/busybox"),
        ("//cbin/./busybox", "cbin/busybox"),
        ("bin/sh", "cbin/busybox"),
        ("usr/bin/abs", "cbin/busybox"),
        ("usr/bin", "cbin"),
        ("usr/bin/", "cbin"),
        ("usr/bin/../usr", "usr"),
        ("../../cbin/sh", "cbin/busybox"),
        ("usr/up/usr", "usr"),
        ("usr/root/bin/sh", "cbin/busybox"),
        ("usr/root/../bin", "cbin"),
        ("cbin/busybox/", None),
        ("cbin/busybox/.", None),
        ("cbin/busybox/..", None),
        ("cbin/sh/../busybox", None),
        ("cbin/busybox/x", None),
        ("filedot", None),
        ("round", None),
        ("self", None),
        ("dangling", None),
        ("dangling/..", None),
        ("nothing/../usr", None),
        ("nothing", None),
        ("", None),
        ("/", None),
    ],
)
def test_a_path_leads_where_the_kernel_says(path: str, leads_to: str | None) -> None:
    found = TREE.resolve(path)
    assert (found and found.path) == leads_to


@pytest.mark.parametrize(("count", "there"), [(40, True), (41, False)])
def test_forty_links_and_no_more(count: int, *, there: bool) -> None:
    links = [L(path=f"l{n:02}", target=f"l{n + 1:02}") for n in range(count - 1)]
    last = L(path=f"l{count - 1:02}", target="end")
    rootfs = Rootfs.of([*links, last, F(path="end", content=b"")])
    assert (rootfs.resolve("l00") is not None) is there


def test_find_does_not_follow_links() -> None:
    assert TREE.find("bin") == L(path="bin", target="cbin")
    assert TREE.find("bin/sh") is None
