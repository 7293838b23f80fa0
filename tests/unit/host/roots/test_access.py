"""Public keys: which are taken, and what is said of the others."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError
from pipeline.host.roots import access
from pipeline.host.roots.access import KeysError
from pipeline.host.state.layout import Layout, prepare
from pipeline.image import keyline
from pipeline.run import run
from tests.support.host_image import KEY, key_file

if TYPE_CHECKING:
    from pathlib import Path

BLOB = KEY.split()[1]


def blob(*parts: bytes) -> str:
    """A key's base64 (RFC 4251, section 5)."""
    return base64.b64encode(b"".join(struct.pack(">I", len(one)) + one for one in parts)).decode()


def rsa(bits: int) -> str:
    modulus = b"\x00" + (1 << (bits - 1) | 1).to_bytes(-(-bits // 8), "big")
    return blob(b"ssh-rsa", b"\x01\x00\x01", modulus)


RSA = rsa(2048)
P256 = blob(b"ecdsa-sha2-nistp256", b"nistp256", b"\x04" + bytes(64))
SK = blob(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
CERT = blob(b"ssh-ed25519-cert-v01@openssh.com", bytes(32))


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"ssh-ed25519 {BLOB}",
        f"ssh-rsa {RSA} me@home",
        f"ecdsa-sha2-nistp256 {P256}",
        f"no-touch-required,verify-required sk-ssh-ed25519@openssh.com {SK} stick",
        f"restrict {KEY}",
        f'no-pty,command="echo a, b # c",permitopen="h:1",permitopen="[::1]:*" {KEY}',
        f'permitlisten="8080" {KEY}',
        f"no-X11-forwarding {KEY}",
        f"ssh-ed25519 {BLOB} " + "x" * (3000 - 13 - len(BLOB)),
    ],
)
def test_a_public_key_is_taken_as_it_stands(line: str) -> None:
    assert access.keys_in(f"# mine\n\n{line}\r\n", name="f") == (line,)


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (f"ssh-ed25519\t{BLOB} me", f"ssh-ed25519 {BLOB} me"),
        (f"ssh-ed25519  {BLOB} me", f"ssh-ed25519 {BLOB} me"),
        (f"ssh-ed25519 {BLOB}\tme and  you", f"ssh-ed25519 {BLOB} me and  you"),
        (f"no-pty  ssh-ed25519 \t {BLOB}", f"no-pty ssh-ed25519 {BLOB}"),
        (f"  {KEY}  ", KEY),
        (f"{KEY}\x0bb", f"{KEY}\x0bb"),  # no end of a line, as str.splitlines has it
    ],
)
def test_blanks_that_dropbear_does_not_take_are_made_one(line: str, written: str) -> None:
    assert access.keys_in(line, name="f") == (written,)


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{KEY}\r\n".encode(),
        f"{KEY}\r\n".encode("utf-16"),
        f"# old Macs\r{KEY}\r".encode(),
    ],
)
def test_a_file_of_another_system_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    assert access.keys_of_file(path).lines == (KEY,)


UNKNOWN_TYPE = f"Dropbear takes {', '.join(keyline.KEY_TYPES[:3])} ..."


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hello", "starts with neither a key type nor options that Dropbear knows"),
        ("ssh-ed25519", "the key itself is missing"),
        ("ssh-ed25519 AAAA", "the key is damaged (not base64, or cut short)"),
        ("ssh-ed25519 !!!", "the key is damaged (not base64, or cut short)"),
        ("ssh-ed25519 äöü", "the key is damaged (not base64, or cut short)"),
        (f"ssh-ed25519 {BLOB[:-12]}", "the key is damaged: 42 bytes, expected 51"),
        (f"ssh-rsa {BLOB}", "says ssh-rsa, the key is of another type"),
        (f"ssh-rsa {RSA[:-8]}", "the key is cut short"),
        (f"ssh-rsa {rsa(768)}", "an RSA key of 768 bits; Dropbear takes 1024 and more"),
        (f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp384', bytes(65))}",
         "the key is damaged: not what a key of its type is made of"),
        (f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com', bytes(32))}",
         "the key is damaged: not what a key of its type is made of"),
        (f"ssh-dss {BLOB}", f"DSA keys are not taken any more; {UNKNOWN_TYPE}"),
        (f"ssh-ed25519-cert-v01@openssh.com {CERT}",
         f"a certificate, and Dropbear takes plain keys only; {UNKNOWN_TYPE}"),
        (f"ssh-ed448 {BLOB}", f"unknown key type; {UNKNOWN_TYPE}"),
        (f"no-pty ssh-dss {BLOB}", f"DSA keys are not taken any more; {UNKNOWN_TYPE}"),
        (f'from="10.0.0.1" {KEY}',
         "option 'from': Dropbear does not know it and would refuse the key"),
        (f'environment="A=b",no-pty {KEY}',
         "option 'environment': Dropbear does not know it and would refuse the key"),
        (f"cert-authority {KEY}",
         "option 'cert-authority': Dropbear does not know it and would refuse the key"),
        (f'command="a",command="b" {KEY}',
         "option 'command' twice: Dropbear would refuse the key"),
        (f"command {KEY}", "option 'command' takes a value: =\"...\""),
        (f'no-pty="yes" {KEY}', "option 'no-pty' takes no value"),
        (f'permitopen="host" {KEY}',
         "option 'permitopen': expected \"host:port\", \"[v6]:port\" or \"host:*\""),
        (f'permitopen="h:65536" {KEY}',
         "option 'permitopen': expected \"host:port\", \"[v6]:port\" or \"host:*\""),
        (f'permitlisten="localhost:8080" {KEY}',
         "option 'permitlisten': Dropbear takes a port alone, 0-65535"),
        (f'command="echo \\"a b\\"" {KEY}',
         'has \\" in an option: for Dropbear the value ends there; put the command into a script'),
        (f'command="open {KEY}', "starts with neither a key type nor options"),
        (f"no-pty,,restrict {KEY}", "starts with neither a key type nor options"),
        (f"ssh-ed25519 {BLOB} {'x' * (3001 - 13 - len(BLOB))}",
         "longer than the 3000 bytes that Dropbear reads"),
        (f"{KEY}\0", "holds a NUL byte"),
        ("---- BEGIN SSH2 PUBLIC KEY ----",
         "the format of RFC 4716; convert it with ssh-keygen -i -f FILE"),
        ("restrict", "no key in it"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_by_its_number(line: str, told: str) -> None:
    with pytest.raises(KeysError) as caught:
        access.keys_in(f"{KEY}\n{line}\n", name="f")
    assert caught.value.problems == (f"line 2: {told}",)


def numbered_keys(count: int) -> list[str]:
    return [
        f"ssh-ed25519 {blob(b'ssh-ed25519', number.to_bytes(32, 'big'))}" for number in range(count)
    ]


def test_as_many_keys_are_taken_as_dropbear_reads() -> None:
    lines = numbered_keys(300)
    assert access.keys_in("\n".join(["# all"] * 10 + lines), name="f") == tuple(lines)


def test_one_key_more_than_dropbear_reads_is_told() -> None:
    with pytest.raises(KeysError) as caught:
        access.keys_in("\n".join(numbered_keys(302)), name="f")
    assert caught.value.problems == ("line 301: Dropbear reads 300 keys, no more",)


def test_keys_of_the_image_count() -> None:
    with pytest.raises(KeysError, match="301 keys, with those of the image"):
        access.merged([KEY], access.Access(lines=tuple(numbered_keys(300))))


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


@pytest.mark.parametrize("content", [None, b"", bytes(99), b"ssh-ed25519 \xff"])
def test_a_lost_public_half_is_made_of_the_private_one(
    layout: Layout, content: bytes | None
) -> None:
    before = access.make_fleet_key(layout)
    public = layout.fleet_key.with_suffix(".pub")
    public.unlink()
    if content is not None:
        public.write_bytes(content)
    assert access.fleet_access(layout) == before


def test_what_is_no_private_key_is_not_handed_out(layout: Layout) -> None:
    access.make_fleet_key(layout)
    layout.fleet_key.write_bytes(b"\x80garbage")
    with pytest.raises(NiftyError, match="fleet_key: no private key"):
        access.fleet_access(layout)


@pytest.mark.parametrize("content", [b"", bytes(400)])
def test_a_key_that_lost_its_content_is_made_anew(layout: Layout, content: bytes) -> None:
    before = access.make_fleet_key(layout)
    layout.fleet_key.write_bytes(content)
    assert access.fleet_access(layout) is None
    assert access.make_fleet_key(layout) != before


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
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
