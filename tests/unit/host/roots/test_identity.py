"""What makes an instance itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pipeline.host.roots import identity
from pipeline.host.roots.identity import HostKey, IdentityError
from pipeline.image.inittab import InittabError
from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from pipeline.run import run
from tests.support.host_image import INITTAB, make_image

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.image.rootfs import Entry

# RFC 8032, section 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def filled(*changed: Entry) -> tuple[str, ...]:
    image = make_image(changed)
    blank = identity.blank(image.rootfs, image.manifest)
    contents = blank.fill("nifty7", 2207, "0" * 32, HostKey(SEED, PUBLIC))
    return tuple(content.decode(errors="replace") for content in contents)


def test_a_new_key_fits_its_seed() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (heavy)

    key = identity.new_host_key()
    private = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
    assert private.public_key().public_bytes_raw() == key.public


def test_no_two_keys_are_alike() -> None:
    assert len({identity.new_host_key().seed for _each in range(50)}) == 50


def test_a_key_does_not_show_its_secret() -> None:
    key = HostKey(SEED, PUBLIC)
    assert repr(SEED) not in repr(key)
    assert SEED.hex() not in repr(key)


def test_the_format_is_dropbears() -> None:
    expected = b"\0\0\0\x0bssh-ed25519\0\0\0\x40" + SEED + PUBLIC
    assert HostKey(SEED, PUBLIC).dropbear == expected


@pytest.mark.integration
def test_dropbearkey_reads_the_key(tmp_path: Path) -> None:
    found = sorted(PROJECT.glob("artifacts/cache/compiled/*/dropbearmulti"))
    if not found:
        pytest.skip("no dropbear was built here")
    key = identity.new_host_key()
    path = tmp_path / "key"
    path.write_bytes(key.dropbear)
    told = run([found[0], "dropbearkey", "-y", "-f", path]).stdout
    assert identity.public_line(key.public) in told


def test_a_machine_id_is_32_hex_digits() -> None:
    assert re.fullmatch("[0-9a-f]{32}", identity.new_machine_id())


def test_the_host_name_is_the_instances() -> None:
    assert filled()[0] == "nifty7\n"


def test_the_name_replaces_the_images_in_hosts() -> None:
    assert filled()[1] == "127.0.0.1 localhost nifty7\n::1 localhost\n"


def test_only_the_whole_word_is_the_name() -> None:
    hosts = b"127.0.0.1 nifty.example nifty my-nifty\n"
    assert filled(File(path="etc/hosts", content=hosts))[1] == (
        "127.0.0.1 nifty.example nifty7 my-nifty\n"
    )


def test_without_the_name_hosts_gets_a_line() -> None:
    hosts = filled(File(path="etc/hosts", content=b"127.0.0.1 localhost\n"))[1]
    assert hosts == "127.0.0.1 localhost\n127.0.1.1 nifty7\n"


def test_the_port_is_the_instances() -> None:
    assert filled()[2] == INITTAB.replace("2200", "2207")


def test_only_the_servers_own_port_changes() -> None:
    table = f"# 2200 1000000000\n{INITTAB}::respawn:/sbin/other -p 2200\n"
    assert filled(File(path="etc/inittab", content=table.encode()))[2] == table.replace(
        "-w -p 2200", "-w -p 2207"
    )


def test_an_image_without_the_port_is_refused() -> None:
    with pytest.raises(InittabError, match="no line"):
        filled(File(path="etc/inittab", content=b"::respawn:/sbin/syslogd\n"))


def test_an_image_without_hosts_is_refused() -> None:
    with pytest.raises(IdentityError, match="no file /etc/hosts"):
        make_image(without=["etc/hosts"])
