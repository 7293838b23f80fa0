"""The manifest: read back as written, noticing every change, and the same on every machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from pipeline.image import manifest
from pipeline.image.manifest import Manifest, ManifestError, MismatchError
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink
from pipeline.paths import PROJECT
from tests.support.images import rootfses

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = Rootfs.of(
    [
        Directory(path="cbin"),
        File(path="cbin/busybox", content=b"!", mode=0o755),
        Symlink(path="bin", target="cbin"),
        Directory(path="usr"),
        Directory(path="usr/lib"),
        Directory(path="usr/lib/nifty"),
        File(path="x", content=b"", uid=3, gid=4),
    ]
)
TABLE: dict[str, Any] = {
    "format": manifest.FORMAT,
    "name": "nifty",
    "title": "Nifty é",
    "version": "1",
    "epoch": 86400,
    "components": [],
    "ssh": {
        "port": 2200,
        "file": "etc/inittab",
        "program": "/sbin/dropbear",
        "word": 4,
        "host_key": "etc/key",
        "accounts": [{"name": "luser", "uid": 1000, "gid": 1000, "home": "home/luser"}],
    },
    "shared": ["cbin"],
    "instance": ["etc/hostname"],
    "needs": {
        "architecture": "x86_64",
        "mount_points": ["proc"],
        "binds": [{"source": "/usr/share/zoneinfo", "target": "usr/share/zoneinfo"}],
    },
}


def describe(rootfs: Rootfs) -> Manifest:
    entries = [manifest.record(entry).model_dump() for entry in rootfs]
    return Manifest.model_validate_json(json.dumps({**TABLE, "entries": entries}))


DESCRIBED = describe(CONTENT)
WHOLE = manifest.add(DESCRIBED, CONTENT)


def told(change: Callable[[dict[str, Any]], object]) -> Rootfs:
    """The whole image, but what its manifest says was changed."""
    table = json.loads(DESCRIBED.text())
    change(table)
    own = File(path=manifest.PATH, content=json.dumps(table).encode())
    return Rootfs.of([*CONTENT, own])


def test_what_was_added_is_read() -> None:
    assert manifest.read(WHOLE, name="image") == DESCRIBED


@given(rootfses())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_image_can_be_described(rootfs: Rootfs) -> None:
    rest = [entry for entry in rootfs if entry.path.split("/")[0] != "usr"]
    parents = [Directory(path=path) for path in ("usr", "usr/lib", "usr/lib/nifty")]
    content = Rootfs.of([*rest, *parents])
    described = describe(content)
    assert manifest.read(manifest.add(described, content), name="image") == described


def without(path: str) -> list[Entry]:
    return [entry for entry in WHOLE if entry.path != path]


@pytest.mark.parametrize(
    "entries",
    [
        without("x"),
        without("bin"),
        [*without("x"), File(path="x", content=b"y", uid=3, gid=4)],
        [*without("x"), File(path="x", content=b"", uid=3, gid=4, mode=0o600)],
        [*without("x"), File(path="x", content=b"", uid=4, gid=4)],
        [*without("x"), File(path="x", content=b"", uid=3, gid=3)],
        [*without("x"), Directory(path="x", mode=0o644, uid=3, gid=4)],
        [*without("bin"), Symlink(path="bin", target="usr")],
        [*without("bin"), Symlink(path="bin", target="cbin", uid=1)],
        [*without("usr"), Directory(path="usr", mode=0o777)],
        [*WHOLE, File(path="more", content=b"")],
    ],
)
def test_every_change_of_an_entry_is_noticed(entries: list[Entry]) -> None:
    with pytest.raises(MismatchError, match="not as its manifest says") as caught:
        manifest.read(Rootfs.of(entries), name="image")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("change", [{"mode": 0o666}, {"uid": 1}, {"gid": 1}])
def test_the_manifest_s_own_owner_and_mode_are_checked(change: dict[str, Any]) -> None:
    own = WHOLE.find(manifest.PATH)
    assert isinstance(own, File)
    with pytest.raises(MismatchError) as caught:
        manifest.read(Rootfs.of([*CONTENT, replace(own, **change)]), name="image")
    assert caught.value.problems == (manifest.PATH,)


def test_an_entry_listed_twice_is_noticed() -> None:
    lying = {"path": "x", "kind": "file", "mode": "4755", "size": 0, "sha256": "0"}
    with pytest.raises(MismatchError, match="listed twice"):
        manifest.read(told(lambda table: table["entries"].insert(0, lying)), name="image")


def test_a_name_in_the_manifest_does_not_reach_the_terminal() -> None:
    bad = {"path": "\x1b[2J", "kind": "directory", "mode": "0755"}
    with pytest.raises(MismatchError) as caught:
        manifest.read(told(lambda table: table["entries"].append(bad)), name="image")
    assert "\x1b" not in str(caught.value)


def test_no_manifest() -> None:
    with pytest.raises(ManifestError, match="image: no manifest at /usr/lib/nifty/"):
        manifest.read(CONTENT, name="image")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"{}", b"[" * 9999])
def test_a_manifest_that_is_none(content: bytes) -> None:
    with pytest.raises(ManifestError, match=r"image: /usr/lib/nifty/image\.json: "):
        manifest.read(
            Rootfs.of([*CONTENT, File(path=manifest.PATH, content=content)]), name="image"
        )


def test_a_manifest_of_another_format() -> None:
    later = {"format": 99, "another": "key"}
    with pytest.raises(ManifestError, match="manifest of format 99, this program reads 1 and 2"):
        manifest.read(told(lambda table: table.update(later)), name="image")


# a component as images of format 1 have it
BEFORE = {
    "name": "busybox",
    "version": "1",
    "licence": "MIT",
    "homepage": "https://example.org/",
    "source_sha256": "0" * 64,
    "patches": [],
    "tools": [["ziglang", "0.17.1"]],
    "path": "cbin/busybox",
    "sha256": "1" * 64,
    "size": 1,
    "applets": 2,
    "elf": {},
}


def test_a_manifest_of_the_format_before_is_read() -> None:
    old = told(lambda table: table.update(format=1, components=[BEFORE]))
    found = manifest.read(old, name="image")
    assert found.format == 1
    (component,) = found.components
    assert (component.cpe, component.licence_files, component.includes) == (None, (), ())


@pytest.mark.parametrize("path", ["/etc/inittab", "../x", "etc/../../x", "", "a//b"])
@pytest.mark.parametrize(
    "change",
    [
        lambda table, path: table["ssh"].update(file=path),
        lambda table, path: table["ssh"].update(host_key=path),
        lambda table, path: table["ssh"]["accounts"][0].update(home=path),
        lambda table, path: table.update(shared=[path]),
        lambda table, path: table.update(instance=[path]),
        lambda table, path: table["needs"].update(mount_points=[path]),
        lambda table, path: table["needs"]["binds"][0].update(target=path),
    ],
    ids=["file", "host_key", "home", "shared", "instance", "mount_points", "binds"],
)
def test_a_path_that_leads_out_of_an_instance(
    change: Callable[[dict[str, Any], str], None], path: str
) -> None:
    with pytest.raises(ManifestError, match="clean relative path"):
        manifest.read(told(lambda table: change(table, path)), name="image")


@pytest.mark.parametrize("name", ["x\n  ProxyCommand y", "luser\n", "", "Root", "-l", "\x1b[2J"])
def test_an_account_that_could_not_stand_in_ssh_config(name: str) -> None:
    bad = told(lambda table: table["ssh"]["accounts"][0].update(name=name))
    with pytest.raises(ManifestError, match=r"ssh\.accounts\.0\.name"):
        manifest.read(bad, name="image")


def test_the_text_is_the_same_whatever_the_order_of_keys() -> None:
    again = Manifest.model_validate_json(
        json.dumps(dict(reversed(list(json.loads(DESCRIBED.text()).items()))))
    )
    assert again.text() == DESCRIBED.text()


@pytest.mark.parametrize("indent", [None, 1])
def test_the_text_is_read_back(indent: int | None) -> None:
    assert Manifest.model_validate_json(DESCRIBED.text(indent)) == DESCRIBED


def test_the_text_ends_in_a_newline_and_has_no_place_of_this_machine() -> None:
    text = DESCRIBED.text()
    assert text.endswith("}\n")
    assert str(PROJECT) not in text
    assert "null" not in text


def test_the_place_of_the_port_is_what_inittab_wants() -> None:
    place = DESCRIBED.ssh.place
    assert (place.program, place.word) == ("/sbin/dropbear", 4)
