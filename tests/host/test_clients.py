"""A release in the hands of Debian 13: its systemd-sysupdate, systemd-pull and Incus, for real.

They are installed into the root of the test machine of that release, and run there in mount and
process namespaces of their own, without a boot. They ask a server on loopback, whose authority
that root trusts.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.trust import sums
from tests.support import signers, webserver
from tests.support.host.testroot import root_archive, wanted_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.run import Completed
    from tests.support.webserver import Site
    from tests.support.whole_release import Publisher

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]
pytest_plugins = ["tests.support.checkouts", "tests.support.whole_release"]

INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy install --no-install-recommends gpg incus-base incus-client incus-extra
"""
ARCHIVE = "nifty_2026.11_x86-64.tar.xz"

# $1 root, $2 what is run in it by sh
ENTER = """set -e
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
for name in run tmp var/lib/incus var/lib/machines; do
    mkdir -p "$1/$name"
    mount -t tmpfs tmpfs "$1/$name"
done
exec chroot "$1" sh -ec "$2"
"""
UPDATE = """
/usr/lib/systemd/systemd-sysupdate update
cd /var/lib/machines
echo *
nifty_2026.11/sbin/init --help 2>&1 | head -n 1
"""
PULL = """
/usr/lib/systemd/systemd-pull tar --verify=signature --image-root=/var/lib/machines "$URL" pulled
ls /var/lib/machines
"""
INCUS = """
export INCUS_DIR=/var/lib/incus SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
(cd /srv/release && incus-simplestreams verify)
mkdir -p /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || true
timeout 120 /usr/libexec/incus/incusd --group root >/tmp/log 2>&1 &
timeout 60 sh -c 'until incus info >/dev/null 2>&1; do sleep 0.2; done' || { cat /tmp/log; exit 1; }
cd /srv/release
incus image import nifty_2026.11_x86-64.incus.tar.xz nifty_2026.11_x86-64.tar.xz --alias by-hand >&2
incus image delete by-hand
incus remote add there "$URL" --protocol simplestreams >&2
incus image copy there:nifty local: --alias copied >&2
incus storage create default dir >&2
incus profile device add default root disk path=/ pool=default >&2
incus init copied one >&2
incus image list --format json
incus admin shutdown --force --timeout 5
wait
"""


@dataclass(frozen=True, kw_only=True)
class Debian:
    """The root of a Debian 13 with the clients, before a server with the release."""

    root: Path
    site: Site
    folder: Path

    def run(self, script: str, *, check: bool = True, **environment: str) -> Completed:
        """What *script* says there."""
        return entered(self.root, script, check=check, **environment)

    def trust(self, ring: bytes) -> None:
        """Have its systemd trust *ring*."""
        (self.root / "etc/systemd/import-pubring.gpg").write_bytes(ring)

    def serve(self, name: str, content: bytes) -> None:
        """Have the server answer with *content* for that file of the release."""
        self.site.answers[f"/nifty/{name}"] = [webserver.whole(content)]


def entered(root: Path, script: str, *, check: bool = True, **environment: str) -> Completed:
    words = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    told = {**CLEAN_ENVIRONMENT, "HOME": "/root", **environment}
    return run(
        [*words, "sh", "-c", ENTER, "sh", str(root), script], env=told, timeout=300, check=check
    )


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    if wanted_suite() != "trixie":
        pytest.skip("these clients are Debian 13's: NIFTY_TEST_SUITE=trixie")
    signers.require("debootstrap", "unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(prefix="nifty-clients-") as name:
        words = ["tar", "--extract", "--exclude=./dev/*", f"--file={root_archive()}"]
        run([*words, f"--directory={name}"], timeout=300)
        Path(name).chmod(0o755)
        for file in ("etc/resolv.conf", "etc/hosts"):
            (Path(name) / file).unlink(missing_ok=True)
            shutil.copyfile(f"/{file}", Path(name) / file)
        entered(Path(name), INSTALL)
        yield Path(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with webserver.serving(tmp_path_factory.mktemp("server")) as site:
        yield site


@pytest.fixture(scope="module")
def folder(
    root: Path, server: Site, publisher: Publisher, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The release, which knows where it is served."""
    made = tmp_path_factory.mktemp("published") / "release"
    assert publisher.publish(made, url=server.url("/nifty/"))
    return made


@pytest.fixture
def debian(root: Path, server: Site, folder: Path) -> Debian:
    webserver.serve(server, folder, "/nifty")
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(server.authorities, bundle)
    (root / "etc/sysupdate.d").mkdir(exist_ok=True)
    shutil.copy(folder / "nifty.transfer", root / "etc/sysupdate.d")
    shutil.rmtree(root / "srv/release", ignore_errors=True)
    shutil.copytree(folder, root / "srv/release")
    made = Debian(root=root, site=server, folder=folder)
    made.trust((folder / "nifty-keyring.pgp").read_bytes())
    return made


def test_systemd_sysupdate_takes_the_release_by_its_own_transfer(
    debian: Debian, publisher: Publisher
) -> None:
    done = debian.run(UPDATE)
    assert done.stdout.splitlines()[-2:] == [
        "nifty_2026.11",
        "BusyBox v1.38.0 () multi-call binary.",
    ]
    assert "Signature verification succeeded" in done.stderr
    # a name in a folder, signed, makes the whole of it useless: hence folders.sha256
    told = (debian.folder / sums.NAME).read_bytes() + b"%s  oci/index.json\n" % (b"0" * 64)
    debian.serve(sums.NAME, told)
    debian.serve(sums.SIGNATURE, publisher.signer.sign(told))
    done = debian.run(UPDATE, check=False)
    assert done.returncode != 0
    assert "Invalid filename specified at manifest line" in done.stderr
    webserver.serve(debian.site, debian.folder, "/nifty")
    debian.trust(signers.signer("Mallory <m@example.org>").certificate)
    done = debian.run(UPDATE, check=False)
    assert done.returncode != 0
    assert "Signature verification failed" in done.stderr


def test_systemd_pull_of_debian_13_takes_it_and_no_byte_else(debian: Debian) -> None:
    url = debian.site.url(f"/nifty/{ARCHIVE}")
    done = debian.run(PULL, URL=url)
    assert done.stdout == "pulled\n"
    assert "Signature verification succeeded" in done.stderr
    content = bytearray((debian.folder / ARCHIVE).read_bytes())
    content[len(content) // 2] ^= 1
    debian.serve(ARCHIVE, bytes(content))
    assert debian.run(PULL, check=False, URL=url).returncode != 0


def test_incus_takes_it_by_hand_and_from_the_server(debian: Debian) -> None:
    """And unpacks it for an instance, which is not started here."""
    done = debian.run(INCUS, URL=debian.site.url("/nifty"))
    (image,) = json.loads(done.stdout)
    table = json.loads((debian.folder / "streams/v1/images.json").read_bytes())
    version = table["products"]["nifty:current:amd64:default"]["versions"]["20261121_2026.11"]
    assert image["fingerprint"] == version["items"]["incus.tar.xz"]["combined_sha256"]
    assert image["architecture"] == "x86_64"
    assert image["created_at"] == "2026-11-21T00:00:00Z"
