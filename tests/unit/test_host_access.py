"""Public keys: which are taken, and what is said of the others."""

from __future__ import annotations

import base64
import os
import stat
import struct
from typing import TYPE_CHECKING

import pytest
from host_image import KEY, key_file

from pipeline.host import access
from pipeline.host.access import KeysError
from pipeline.host.layout import Layout, prepare
from pipeline.run import run

if TYPE_CHECKING:
    from pathlib import Path

BLOB = KEY.split()[1]
RSA = base64.b64encode(struct.pack(">I", 7) + b"ssh-rsa" + bytes(300)).decode()


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"ssh-ed25519 {BLOB}",
        f"ssh-rsa {RSA} me@home",
        f"restrict {KEY}",
        f'no-pty,command="echo \\"a, b\\" c",permitopen="h:1" {KEY}',
        f"no-X11-forwarding {KEY}",
    ],
)
def test_a_public_key_is_taken_as_it_stands(line: str) -> None:
    assert access.keys_in(f"# mine\n\n{line}\r\n", name="f") == (line,)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hello", "starts with neither a key type nor options that Dropbear knows"),
        ("ssh-ed25519", "the key itself is missing"),
        ("ssh-ed25519 AAAA", "the key is damaged (not base64, or cut short)"),
        ("ssh-ed25519 !!!", "the key is damaged (not base64, or cut short)"),
        (f"ssh-ed25519 {BLOB[:-12]}", "the key is damaged: 42 bytes, expected 51"),
        (f"ssh-rsa {BLOB}", "says ssh-rsa, the key is of another type"),
        (f"ssh-dss {BLOB}",
         f"DSA keys are not taken any more; Dropbear takes {', '.join(access.KEY_TYPES[:3])} ..."),
        (f'from="10.0.0.1" {KEY}',
         "option 'from': Dropbear does not know it and would refuse the key"),
        (f'command="open {KEY}', "starts with neither a key type nor options"),
        (f"{KEY}{'x' * 4200}", "longer than the 4200 bytes that Dropbear reads"),
        ("---- BEGIN SSH2 PUBLIC KEY ----",
         "the format of RFC 4716; convert it with ssh-keygen -i -f FILE"),
        ("restrict", "no key in it"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_by_its_number(line: str, told: str) -> None:
    with pytest.raises(KeysError) as caught:
        access.keys_in(f"{KEY}\n{line}\n", name="f")
    assert caught.value.problems == (f"line 2: {told}",)


def test_all_bad_lines_are_told() -> None:
    with pytest.raises(KeysError) as caught:
        access.keys_in("a\nb\n", name="f")
    assert len(caught.value.problems) == 2


def test_a_private_key_is_refused_and_not_repeated() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(KeysError, match="holds a private key") as caught:
        access.keys_in(text, name="f")
    assert "c2VjcmV0" not in str(caught.value)


def test_a_file_without_keys_is_refused() -> None:
    with pytest.raises(KeysError, match="no public key in it"):
        access.keys_in("# nothing\n", name="f")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"none\.pub: No such file"):
        access.keys_of_file(tmp_path / "none.pub")


def test_only_id_files_are_the_users(tmp_path: Path) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "id_ed25519.pub").write_text(f"{KEY}\n")
    (folder / "authorized_keys").write_text(f"ssh-rsa {RSA}\n")
    assert access.keys_of_user(tmp_path) == access.Access(lines=(KEY,))


def test_a_bad_key_of_the_users_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "id_dsa.pub").write_text(f"ssh-dss {BLOB}\n")
    assert access.keys_of_user(tmp_path) is None
    assert "DSA keys are not taken any more" in capsys.readouterr().err


def test_a_home_without_keys_gives_none(tmp_path: Path) -> None:
    assert access.keys_of_user(tmp_path) is None


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    prepare(made)
    return made


def test_the_fleets_key_is_its_owners_alone(layout: Layout) -> None:
    access.make_fleet_key(layout)
    assert stat.S_IMODE(layout.fleet_key.stat().st_mode) == 0o600


def test_the_fleets_key_is_made_once(layout: Layout) -> None:
    assert access.make_fleet_key(layout) == access.make_fleet_key(layout)


def test_openssh_reads_the_fleets_key(layout: Layout) -> None:
    (line,) = access.make_fleet_key(layout).lines
    told = run(["ssh-keygen", "-y", "-f", layout.fleet_key]).stdout
    assert told.split()[:2] == line.split()[:2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else before sudo")
def test_the_fleets_key_belongs_to_who_typed_the_command(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "nobody")
    access.make_fleet_key(layout)
    assert layout.fleet_key.owner() == "nobody"


def test_a_key_file_is_read(tmp_path: Path) -> None:
    assert access.keys_of_file(key_file(tmp_path)).lines == (KEY,)
