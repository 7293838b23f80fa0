"""Instances from a signed release on a web server, on a real systemd."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.commands.publish import built
from pipeline.release import keys
from tests.support import signers
from tests.support.host.user import User
from tests.support.published import put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

URL = "http://127.0.0.1:8643/"
RING = "keyring=/srv/release/nifty-keyring.pgp"
SERVE = f"cd /srv/release && exec {sys.executable} -m http.server 8643 --bind 127.0.0.1"


@pytest.fixture(scope="module")
def user(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody on a machine with a release of the image on loopback."""
    image = built("nifty", os.uname().machine)
    assert image is not None
    folder = tmp_path_factory.mktemp("published") / "release"
    signing = keys.load("test", signers.signer().made.signing, {}, signers.NOW)
    put(folder, image, signing=signing)
    for path in folder.iterdir():
        if path.is_file():
            machine.put(f"/srv/release/{path.name}", path.read_bytes())
    machine.run(["systemd-run", "--quiet", "--unit=release", "bash", "-c", SERVE])
    user = User(machine)
    ready = "until exec 3<>/dev/tcp/127.0.0.1/8643; do sleep 0.1; done"
    try:
        machine.run(["bash", "-c", ready], timeout=30)
        yield user
    finally:
        user.clean()
        user.shell("systemctl stop release; rm -rf /srv/release /var/cache/nifty")


def test_deploy_and_upgrade_take_a_signed_release(user: User) -> None:
    assert "signed by whom?" in user.refused("deploy", "count=2", f"image={URL}", code=2)
    assert user.shell("ls -A /home").split() == []
    done = user.doit("deploy", "count=2", "start=yes", f"image={URL}", RING)
    assert "signed by Nifty <nifty@example.org>" in done.stderr
    assert user.answering() == ["nifty1", "nifty2"]
    # of the source as a whole, and of the image
    assert len(user.shell("ls /home/.nifty/trusted").split()) == 2
    done = user.doit("upgrade", f"image={URL}", RING)
    assert "0 moved, 2 were there already" in done.stderr
    # the archive is in the cache, and not what was published any more
    user.shell("for one in /srv/release/*.zst /var/cache/nifty/????????*; do echo x >>$one; done")
    told = user.refused("deploy", "name=late", f"image={URL}", RING)
    assert "bytes, the release names" in told
    assert user.answering() == ["nifty1", "nifty2"]
