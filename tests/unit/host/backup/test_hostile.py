"""Backups that are damaged, or made to do harm: each is refused with a reason, nothing touched."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from pipeline.errors import NiftyError
from pipeline.host.backup import inventory, restore, scanning, sections
from pipeline.host.backup.parcel import Kind, Member, head
from pipeline.host.state.layout import Layout
from pipeline.host.state.records import Users
from tests.support.crafted import IMAGE, PLAIN, ROOT, Crafted, directory, file, hard, instance, link
from tests.support.host_image import make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHER = make_image(version="2")
ACL = struct.pack("<IHHI", 2, 0x02, 7, 1000)
FAR = struct.pack("<IHHI", 2, 0x02, 7, 70000)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Where nothing is."""
    made = tmp_path / "home"
    made.mkdir(mode=0o755)
    return made


def refused(path: Path, prefix: Path, *, host_users: bool = True) -> str:
    """What is told when *path* is restored; nothing is below *prefix* then."""
    wish = scanning.Wish(choose=tuple, host_users=host_users)
    layout = Layout(prefix)
    with pytest.raises(NiftyError) as caught, sections.opened(path) as backup:
        restore.restore(backup, scanning.scan(backup, layout, wish), layout)
    left = [name for name in os.listdir(prefix) if name.startswith("nifty")]  # noqa: PTH208 (bare names)
    assert left == []
    told = caught.value.message
    assert told.replace("\n", "").isprintable()
    return told


def more(*members: tuple[Member, bytes]) -> Crafted:
    return Crafted(members=(*PLAIN, *members))


def altered(change: Callable[[dict[str, Any]], object]) -> Crafted:
    return Crafted(table=lambda table: change(table["instances"][0]))


def sparse(*extents: tuple[int, int], length: int, content: int) -> tuple[Member, bytes]:
    member, _ = file("s", b"x" * content)
    return replace(member, extents=extents, length=length), b"x" * content


def device(tar: bytes) -> bytes:
    """The tar with its notes made a device."""
    at = tar.index(b"roots/nifty1/home/notes\0")
    return with_sum(tar, at, {156: b"3"})


def with_sum(tar: bytes, at: int, changes: dict[int, bytes]) -> bytes:
    """The header at *at* changed, with the sum it then has to have."""
    header = bytearray(tar[at : at + 512])
    for offset, value in changes.items():
        header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:at] + header + tar[at + 512 :]


def record(tar: bytes) -> bytes:
    """The tar with a record that nobody knows, of the length of the time that was there."""
    return tar.replace(b"mtime=0", b"atime=0")


@pytest.mark.parametrize(
    ("crafted", "told"),
    [
        pytest.param(more(file("../evil")), "not a clean relative path", id="parent"),
        pytest.param(more(file("home//x")), "not a clean relative path", id="empty part"),
        pytest.param(more(file("./x")), "not a clean relative path", id="dot"),
        pytest.param(
            Crafted(members=(*PLAIN, (Member(kind=Kind.FILE, path=b"/etc/passwd"), b""))),
            "not a clean relative path",
            id="absolute",
        ),
        pytest.param(
            Crafted(members=(*PLAIN, (Member(kind=Kind.FILE, path=b"etc/passwd"), b""))),
            "etc/passwd where its digest should be",
            id="outside",
        ),
        pytest.param(
            Crafted(members=(*PLAIN, (Member(kind=Kind.FILE, path=b"roots/nifty2/x"), b""))),
            "roots/nifty2/x where its digest should be",
            id="another's root",
        ),
        pytest.param(more(file("a" * 256)), "longer than 255 bytes a name", id="long name"),
        pytest.param(more(file(b"z\0z" * 40)), "not a clean relative path", id="NUL"),
        pytest.param(more(file("home/notes")), "stands there twice", id="twice"),
        pytest.param(more(directory("etc")), "stands there twice", id="directory twice"),
        pytest.param(more(file("a")), "out of order", id="order"),
        pytest.param(more(file("none/x")), "in no folder", id="no parent"),
        pytest.param(more(link("l", b"/etc"), file("l/passwd")), "in no folder", id="through link"),
        pytest.param(more(file("p"), file("p/x")), "in no folder", id="through file"),
        pytest.param(
            Crafted(members=(ROOT, *(directory("/".join("d" * n)) for n in range(1, 410)))),
            "below 400 directories",
            id="deep",
        ),
        pytest.param(more(hard("x", b"roots/nifty1/none")), "a hard link to", id="hard: none"),
        pytest.param(more(hard("x", b"/etc/shadow")), "a hard link to", id="hard: absolute"),
        pytest.param(more(hard("x", b"../../etc/shadow")), "a hard link to", id="hard: parent"),
        pytest.param(
            more(link("l", b"/etc/shadow"), hard("x", b"roots/nifty1/l")),
            "a hard link to",
            id="hard: link",
        ),
        pytest.param(more(hard("x", b"")), "a link without a target", id="hard: nothing"),
        pytest.param(more(link("x", b"")), "a link without a target", id="link: nothing"),
        pytest.param(more(file("x", target=b"y")), "a target without a link", id="file: target"),
        pytest.param(more(link("x", b"y" * 5000)), "a target that no link can have", id="target"),
        pytest.param(more(file("x", mode=0o4755)), "setuid", id="setuid"),
        pytest.param(more(directory("x", mode=0o2755)), "setuid", id="setgid"),
        pytest.param(Crafted(tar=device), "a character device", id="device"),
        pytest.param(more(file("x", uid=65536)), "its owner is outside 0-65535", id="uid"),
        pytest.param(more(file("x", gid=1 << 31)), "its owner is outside 0-65535", id="gid"),
        pytest.param(
            more(file("x", attributes=((b"security.capability", b""),))),
            "an attribute security.capability",
            id="capability",
        ),
        pytest.param(
            more(file("x", attributes=((b"trusted.overlay.opaque", b"y"),))),
            "an attribute trusted.overlay.opaque",
            id="trusted",
        ),
        pytest.param(
            more(link("x", b"y", attributes=((b"user.a", b""),))),
            "attributes of what can have none",
            id="attribute of a link",
        ),
        pytest.param(
            more(file("x", attributes=((b"system.posix_acl_access", ACL[:-1]),))),
            "no access control list",
            id="list: cut",
        ),
        pytest.param(
            more(file("x", attributes=((b"system.posix_acl_access", FAR),))),
            "an id outside the user range",
            id="list: range",
        ),
        pytest.param(
            more(file("x", attributes=((b"user.a", b"x" * 70000),))), "64 KiB", id="big attribute"
        ),
        pytest.param(more(sparse((0, 512), (256, 8), length=999, content=520)), "overlap", id="s1"),
        pytest.param(more(sparse((0, 512), length=100, content=512)), "pass its end", id="s2"),
        pytest.param(more(sparse((0, 512), length=999, content=100)), "not its content", id="s3"),
        pytest.param(more(sparse((8, 0), (4, 4), length=999, content=4)), "overlap", id="s4"),
        pytest.param(
            more(sparse(*((n, 1) for n in range(200000)), length=1 << 40, content=200000)),
            "a number up to 131073",
            id="s5",
        ),
        pytest.param(Crafted(tar=record), "without its time", id="record"),
        pytest.param(Crafted(members=PLAIN[1:]), "the root of nifty1 is missing", id="no root"),
        pytest.param(Crafted(members=()), "the root of nifty1 is missing", id="nothing"),
        pytest.param(
            Crafted(members=((Member(kind=Kind.FILE, path=b"roots/nifty1"), b""),)),
            "is missing before",
            id="root: file",
        ),
        pytest.param(
            more(file("x\x1b]0;evil\x07"), file("x\x1b]0;evil\x07")),
            r"roots/nifty1/x\x1b]0;evil\x07: stands there twice",
            id="terminal",
        ),
    ],
)
def test_members_that_no_backup_has(
    tmp_path: Path, prefix: Path, crafted: Crafted, told: str
) -> None:
    assert told in refused(crafted.write(tmp_path), prefix)


def deep(table: dict[str, Any]) -> None:
    inner: list[Any] = []
    for _ in range(900):
        inner = [inner]
    table["live"] = inner


@pytest.mark.parametrize(
    ("crafted", "told"),
    [
        pytest.param(Crafted(text=b"{" * 100), "its inventory is damaged", id="no JSON"),
        pytest.param(Crafted(text=b"[" * 1000000), "its inventory is damaged", id="depth"),
        pytest.param(Crafted(table=deep), "its inventory is damaged: live", id="some depth"),
        pytest.param(Crafted(text=b"[]"), "not a backup of this program", id="list"),
        pytest.param(Crafted(text=b'{"a":1,"a":2}'), "a key stands there twice", id="twice"),
        pytest.param(Crafted(text=b'{"a":NaN}'), "NaN is no number", id="NaN"),
        pytest.param(Crafted(text=b"\xff\xfe"), "its inventory is damaged", id="no UTF-8"),
        pytest.param(Crafted(text=b" " * (33 << 20)), "bytes, at most", id="large"),
        pytest.param(
            Crafted(table=lambda table: table.update(format=2)),
            "of format '2', this program reads 1",
            id="newer",
        ),
        pytest.param(
            Crafted(table=lambda table: table.update(more=1)), "missing or unknown", id="unknown"
        ),
        pytest.param(
            Crafted(table=lambda table: table.pop("live")), "missing or unknown", id="missing"
        ),
        pytest.param(
            Crafted(table=lambda table: table.update(instances=[])), "no instance", id="empty"
        ),
        pytest.param(
            Crafted(table=lambda table: table.update(instances={})), "no list", id="no list"
        ),
        pytest.param(
            Crafted(table=lambda table: table.update(fleet_key=1)), "neither true", id="truth"
        ),
        pytest.param(
            Crafted(table=lambda table: table.update(live=["nifty9"])), "nobody", id="live"
        ),
        pytest.param(
            Crafted(instances=(instance(), instance())), "stands there twice", id="same name"
        ),
        pytest.param(Crafted(instances=(instance(), instance("2"))), "one port", id="same port"),
        pytest.param(
            Crafted(instances=(instance("2"), instance("1", port=20002))),
            "out of order",
            id="order",
        ),
        pytest.param(altered(lambda one: one.update(suffix="../x")), "no name", id="path"),
        pytest.param(altered(lambda one: one.update(suffix=7)), "without a name", id="number"),
        pytest.param(altered(lambda one: one.update(suffix="nifty1")), "no name", id="whole name"),
        pytest.param(
            altered(lambda one: one.update(port=0)), "from 1 to 65535, found 0", id="port"
        ),
        pytest.param(altered(lambda one: one.update(port=70000)), "found 70000", id="high port"),
        pytest.param(altered(lambda one: one.update(image="x")), "expected a sha256", id="image"),
        pytest.param(altered(lambda one: one.update(base=0)), "base 0 does not go", id="base"),
        pytest.param(
            altered(lambda one: one.update(login="x\n  ProxyCommand evil")),
            "login: expected an account's name",
            id="login",
        ),
        pytest.param(
            altered(lambda one: one.update(host_key=one["host_key"] + "\n* ssh-ed25519 AAAA")),
            "host_key: expected an ed25519 key",
            id="host key",
        ),
        pytest.param(
            altered(lambda one: one.update(machine_id="0" * 31)), "32 hex", id="machine-id"
        ),
        pytest.param(altered(lambda one: one.update(more=1)), "unknown: more", id="field"),
        pytest.param(altered(lambda one: one.pop("port")), "missing or unknown", id="no field"),
        pytest.param(altered(lambda one: one.update(runner="\x1b[2J")), "damaged", id="runner"),
        pytest.param(Crafted(images=()), "not exactly the images", id="no image"),
        pytest.param(
            Crafted(images=((IMAGE.digest, IMAGE.archive), (OTHER.digest, OTHER.archive))),
            "not exactly the images" if IMAGE.digest < OTHER.digest else "images",
            id="too many images",
        ),
        pytest.param(
            Crafted(images=((IMAGE.digest, OTHER.archive),)), "holds another", id="other image"
        ),
        pytest.param(
            Crafted(images=((IMAGE.digest, b"evil"),)), "not an image archive", id="evil image"
        ),
        pytest.param(
            Crafted(instances=(replace(instance(), fleet=True),)), "is missing", id="no fleet key"
        ),
        pytest.param(
            Crafted(instances=(replace(instance(), fleet=True),), key=b"evil"),
            "no ed25519 key",
            id="evil fleet key",
        ),
    ],
)
def test_inventories_that_no_backup_has(
    tmp_path: Path, prefix: Path, crafted: Crafted, told: str
) -> None:
    assert told in refused(crafted.write(tmp_path), prefix)


def test_the_hosts_users_are_given_to_nobody_who_did_not_say_so(
    tmp_path: Path, prefix: Path
) -> None:
    crafted = Crafted(instances=(instance(users=Users.HOST),))
    told = refused(crafted.write(tmp_path), prefix, host_users=False)
    assert "nifty1: shares the host's users" in told


def test_every_shorter_file_is_refused(tmp_path: Path, prefix: Path) -> None:
    whole = Crafted().write(tmp_path).read_bytes()
    path = tmp_path / "short"
    for size in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        assert refused(path, prefix)


def test_every_shorter_tar_is_refused(tmp_path: Path, prefix: Path) -> None:
    tar = Crafted().unpacked()
    path = tmp_path / "short"
    for size in (*range(0, len(tar), 2048), len(tar) - 1, len(tar) - 1024):
        path.write_bytes(zstandard.compress(tar[:size]))
        assert refused(path, prefix)


def test_every_changed_byte_is_refused(tmp_path: Path, prefix: Path) -> None:
    tar = Crafted().unpacked()
    path = tmp_path / "changed"
    chance = random.Random(1)  # noqa: S311 (moments, not secrets)
    for at in chance.sample(range(len(tar) - 1024), 60):
        path.write_bytes(zstandard.compress(tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :]))
        assert refused(path, prefix)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda tar: tar + bytes(512), "something follows its end", id="blocks"),
        pytest.param(lambda tar: tar + tar, "something follows its end", id="second tar"),
        pytest.param(lambda tar: tar[:-1] + b"x", "something follows its end", id="end mark"),
        pytest.param(
            lambda tar: tar.replace(b"mine\n", b"evil\n"), "its digest is not that", id="content"
        ),
        pytest.param(lambda tar: tar[512:], "a header that is none", id="no records"),
    ],
)
def test_tars_with_something_else(
    tmp_path: Path, prefix: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    assert told in refused(Crafted(tar=change).write(tmp_path), prefix)


def bomb() -> bytes:
    """A hundred megabytes of zeros where the inventory should be."""
    whole = head(Member(kind=Kind.FILE, path=inventory.NAME, size=100 << 20)) + bytes(100 << 20)
    return zstandard.compress(whole)


# A stream that asks for a window of a gigabyte (RFC 8878, 3.1.1.1.2), with an empty last block.
FAR_BACK = b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "not a backup of this program", id="empty"),
        pytest.param(b"hello", "not a backup of this program", id="text"),
        pytest.param(b"\x28\xb5\x2f\xfdhello", "", id="no stream"),
        pytest.param(zstandard.compress(b""), "it ends too early", id="empty stream"),
        pytest.param(zstandard.compress(b"x" * 5000), "a header that is none", id="other content"),
        pytest.param(zstandard.compress(IMAGE.archive), "without its records", id="image"),
        pytest.param(bomb(), "bytes, at most", id="bomb"),
        pytest.param(FAR_BACK, "", id="window"),
        pytest.param(zstandard.compress(Crafted().unpacked()) + b"x", "", id="trailing byte"),
        pytest.param(
            zstandard.compress(Crafted().unpacked()) + zstandard.compress(b"x"),
            "something follows its end",
            id="second frame",
        ),
    ],
)
def test_files_that_are_no_backup(tmp_path: Path, prefix: Path, content: bytes, told: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    found = refused(path, prefix)
    assert found.startswith(f"{path}: ")
    assert told in found


def test_what_is_no_file_is_told(tmp_path: Path, prefix: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe", prefix)
    assert "not a regular file" in refused(tmp_path, prefix)
    assert "No such file" in refused(tmp_path / "none", prefix)


def test_the_crafted_one_itself_is_right(tmp_path: Path, prefix: Path) -> None:
    users = Users.PRIVATE if os.geteuid() == 0 else Users.HOST
    crafted = Crafted(
        instances=(instance(users=users),),
        members=(
            *PLAIN,
            file("x", b"content", linked=True, attributes=((b"user.a=b", b"\0"),)),
            hard("y", b"roots/nifty1/x"),
            link("z", b"/etc/\x1b"),
        ),
    )
    wish = scanning.Wish(choose=tuple, host_users=True)
    layout = Layout(prefix)
    with sections.opened(crafted.write(tmp_path)) as backup:
        restore.restore(backup, scanning.scan(backup, layout, wish), layout)
    root = prefix / "nifty1"
    assert (root / "y").samefile(root / "x")
    assert os.getxattr(root / "x", "user.a=b") == b"\0"
    assert os.readlink(os.fsencode(root / "z")) == b"/etc/\x1b"  # noqa: PTH115 (bytes)
    assert (root / "home/notes").read_bytes() == b"mine\n"
