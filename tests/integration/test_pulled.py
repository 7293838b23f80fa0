"""A release in the hands of the real programs: gpgv, gpg, and systemd-pull on loopback.

systemd-pull has its keyring in /etc/systemd: a mount namespace gives it one of the test's.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.release import keys
from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.trust import keyring, sums
from pipeline.trust.verify import SignatureError, verify
from tests.support import signers
from tests.support.published import FIRST, SECOND, put, stem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.run import Completed

pytestmark = pytest.mark.integration

PULL = Path("/usr/lib/systemd/systemd-pull")
SIGNER, MALLORY = signers.signer(), signers.signer("Mallory <m@example.org>")
ARCHIVE = f"{stem()}.tar.xz"

# $1 keyring or empty, $2 where images go, $3 URL
SCRIPT = """set -e
mount -t tmpfs -o mode=755 none /etc/systemd
[ -z "$1" ] || cp "$1" /etc/systemd/import-pubring.gpg
exec /usr/lib/systemd/systemd-pull tar --verify=signature --image-root="$2" "$3" pulled
"""


def signing(one: signers.Signer) -> keys.Signing:
    return keys.load("test", one.made.signing, {}, signers.NOW)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "release"
    put(folder, FIRST, signing=signing(SIGNER))
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """The tests' output is not the place."""


class Puller:
    """systemd-pull before a directory that is served on loopback, and that a test may change."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url
        self._images = folder.parent / "images"

    def pull(self, ring: bytes | None, name: str = ARCHIVE) -> Completed:
        """What it said; what it made is gone again."""
        path = self.folder.parent / "ring"
        path.write_bytes(ring or b"")
        self._images.mkdir()
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]
        words += [str(path) if ring else "", str(self._images), f"{self._url}/{name}"]
        environment = {**CLEAN_ENVIRONMENT, "HOME": str(self.folder.parent)}
        try:
            return run(words, env=environment, timeout=60, check=False)
        finally:
            # the pristine copy is immutable
            run(["chattr", "-R", "-i", self._images], check=False)
            shutil.rmtree(self._images)

    def made(self, ring: bytes | None, name: str = ARCHIVE) -> bool:
        """Whether an image was made of *name*."""
        return self.pull(ring, name).returncode == 0


@pytest.fixture
def puller(release: Path, tmp_path: Path) -> Iterator[Puller]:
    signers.require("unshare", "gpg", "chattr", str(PULL))
    if os.geteuid() != 0:
        pytest.skip("systemd-pull makes images as root")
    shutil.copytree(release, tmp_path / "served")
    handler = partial(_Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Puller(tmp_path / "served", f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def test_systemd_pull_takes_what_is_signed_by_a_key_it_has(puller: Puller) -> None:
    done = puller.pull(SIGNER.certificate)
    assert done.returncode == 0, done.stderr
    assert "SHA256 checksum" in done.stderr
    assert "Signature verification succeeded" in done.stderr


def test_the_published_keyring_is_one_for_systemd_pull(puller: Puller) -> None:
    assert puller.made((puller.folder / "nifty-keyring.pgp").read_bytes())


def test_systemd_pull_refuses_without_the_key(puller: Puller) -> None:
    done = puller.pull(MALLORY.certificate)
    assert done.returncode != 0
    assert "Signature verification failed" in done.stderr
    assert not puller.made(None)


@pytest.mark.parametrize("name", [sums.NAME, sums.SIGNATURE, ARCHIVE])
def test_systemd_pull_refuses_one_byte_changed(puller: Puller, name: str) -> None:
    path = puller.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert not puller.made(SIGNER.certificate)


def test_systemd_pull_refuses_anothers_signature(puller: Puller) -> None:
    told = (puller.folder / sums.NAME).read_bytes()
    (puller.folder / sums.SIGNATURE).write_bytes(MALLORY.sign(told))
    assert not puller.made(SIGNER.certificate)
    assert puller.made(SIGNER.certificate + MALLORY.certificate)


def test_systemd_pull_refuses_sums_of_another_release(puller: Puller, tmp_path: Path) -> None:
    put(tmp_path / "other", SECOND, signing=signing(SIGNER))
    for name in (sums.NAME, sums.SIGNATURE):
        shutil.copy(tmp_path / "other" / name, puller.folder / name)
    assert not puller.made(SIGNER.certificate)


def gpgv(content: Path, signature: Path, ring: bytes, home: Path) -> int:
    (home / "ring").write_bytes(ring)
    words = ["gpgv", "--homedir", str(home), "--keyring", str(home / "ring")]
    return run([*words, signature, content], check=False).returncode


def test_gpgv_takes_the_release_with_its_published_keyring(release: Path, tmp_path: Path) -> None:
    signers.require("gpgv")
    told, signature = release / sums.NAME, release / sums.SIGNATURE
    assert gpgv(told, signature, (release / "nifty-keyring.pgp").read_bytes(), tmp_path) == 0
    assert gpgv(told, signature, MALLORY.certificate, tmp_path) != 0


def test_an_expired_key_is_refused_here_though_gpgv_and_systemd_pull_are_content(
    puller: Puller, tmp_path: Path
) -> None:
    """What gpgv says of the expiry of a key that was good when it signed is a remark, not a no."""
    late = signers.expiring(6)
    told, signature = puller.folder / sums.NAME, puller.folder / sums.SIGNATURE
    signature.write_bytes(late.sign(told.read_bytes()))
    ring = keyring.read(late.certificate, name="late")
    verify(told.read_bytes(), signature.read_bytes(), ring, name="S")
    time.sleep(7)
    for program in ("sequoia", "gpgv"):
        with pytest.raises(SignatureError, match="expired on"):
            verify(told.read_bytes(), signature.read_bytes(), ring, name="S", program=program)
    assert gpgv(told, signature, late.certificate, tmp_path) == 0
    assert puller.made(late.certificate)
