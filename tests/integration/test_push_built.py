"""The built image, published and pushed, in the hands of skopeo, podman, umoci and `doit`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.image import archive, manifest
from pipeline.net import reference
from pipeline.release import referrers
from pipeline.run import run
from tests.support.registry import fetched, real
from tests.support.signers import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.checkouts import Checkout, Copier
    from tests.support.whole_release import Publisher

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts", "tests.support.whole_release"]

NAME = "nifty-x86_64"
# the engine's own limits may be more than this test may have
LIMITS = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A checkout whose image was pushed: where to, what was said of it, and its keyring."""

    checkout: Checkout
    host: str
    said: dict[str, Any]
    ring: Path

    @property
    def published(self) -> bytes:
        return (self.checkout.artifacts / f"{NAME}.tar.zst").read_bytes()


@pytest.fixture(scope="module")
def pushed(
    checkout: Checkout,
    whole_release: Path,
    publisher: Publisher,
    copy_project: Copier,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pushed]:
    require("docker-registry", "skopeo")
    folder = tmp_path_factory.mktemp("pushed")
    made = copy_project(folder / "checkout")
    for path in checkout.artifacts.glob(f"{NAME}.*"):
        shutil.copy(path, made.artifacts)
    shutil.copytree(whole_release, made.artifacts / "release")
    ring = folder / "ring.pgp"
    ring.write_bytes(publisher.signer.certificate)
    (folder / "registry").mkdir()
    with real(folder / "registry") as host:
        words = (f"to=oci://{host}/nifty", "tag=one,two", "arch=x86_64", "format=json")
        done = made.doit("push", *words)
        assert done.stderr.endswith("one, two set\n")
        yield Pushed(checkout=made, host=host, said=json.loads(done.stdout), ring=ring)


def raw(pushed: Pushed, name: str) -> bytes:
    """The bytes of manifest *name*, as skopeo has them."""
    words = ("inspect", "--tls-verify=false", "--raw", f"docker://{pushed.host}/{name}")
    return run(["skopeo", *words], timeout=120).stdout.encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_release_and_what_refers_to_it_agree(pushed: Pushed) -> None:
    assert digest(raw(pushed, "nifty:two")) == pushed.said["digest"]
    layer = pushed.said["manifests"][1]["layer"]["digest"].removeprefix("sha256:")
    sums = (pushed.checkout.artifacts / "release/SHA256SUMS").read_text()
    assert f"{layer}  nifty_2026.11_x86-64.tar.zst\n" in sums
    listed = json.loads(raw(pushed, f"nifty:{referrers.fallback_tag(pushed.said['digest'])}"))
    assert listed["manifests"] == pushed.said["referrers"]
    kinds = {one["artifactType"] for one in listed["manifests"]}
    assert kinds == {
        "application/vnd.cyclonedx+json", "application/vnd.openvex+json",
        "application/vnd.in-toto+json", "application/vnd.nifty.source.v1", referrers.SUMS,
    }  # fmt: skip
    words = (f"from=oci://{pushed.host}/nifty:one", f"keyring={pushed.ring}", "format=json")
    checks = json.loads(pushed.checkout.doit("verify", *words).stdout)
    assert {"index", "SHA256SUMS.gpg", "nifty_2026.11_source.tar.zst"} <= {
        one["name"] for one in checks
    }


def test_copies_by_skopeo_keep_every_digest_there_and_back(pushed: Pushed, tmp_path: Path) -> None:
    words = ("skopeo", "copy", "--all", "--preserve-digests")
    here, source = f"oci:{tmp_path / 'layout'}:x", f"docker://{pushed.host}/nifty:one"
    run([*words, "--src-tls-verify=false", source, here], timeout=120)
    run([*words, "--dest-tls-verify=false", here, f"docker://{pushed.host}/copy:x"], timeout=120)
    assert digest(raw(pushed, "copy:x")) == pushed.said["digest"]
    assert fetched(reference.parse(f"oci://{pushed.host}/copy:x"), "x86_64") == pushed.published
    # and what doit mirror leaves on a drive, skopeo takes
    drive = tmp_path / "drive"
    more = (f"from=oci://{pushed.host}/nifty:one", f"to={drive}", f"keyring={pushed.ring}")
    pushed.checkout.doit("mirror", *more)
    there = f"docker://{pushed.host}/drive:x"
    run([*words, "--dest-tls-verify=false", f"oci:{drive}:2026.11", there], timeout=120)
    assert digest(raw(pushed, "drive:x")) == pushed.said["digest"]


def test_umoci_unpacks_the_manifest_that_engines_take(pushed: Pushed, tmp_path: Path) -> None:
    require("umoci")
    one, source = tmp_path / "one", f"docker://{pushed.host}/nifty:one"
    words = ("copy", "--src-tls-verify=false", "--override-arch=amd64", source, f"oci:{one}:x")
    run(["skopeo", *words], timeout=120)
    run(["umoci", "unpack", "--rootless", "--image", f"{one}:x", tmp_path / "bundle"], timeout=120)
    listed = manifest.read(archive.read(pushed.published), name=NAME).entries
    files = {entry.path: entry.sha256 for entry in listed if entry.kind == "file"}
    root = tmp_path / "bundle/rootfs"
    found = {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in files}
    assert found == files
    config = json.loads((tmp_path / "bundle/config.json").read_bytes())
    assert config["process"]["args"] == ["/bin/sh"]


@pytest.fixture
def podman() -> Iterator[list[str | Path]]:
    """The words before podman's own, with a storage that goes with the test."""
    require("podman", "runc")
    if os.geteuid() != 0 or os.uname().machine != "x86_64":
        pytest.skip("needs root, and runs x86_64 programs")
    # its runroot must not be longer than 50 characters
    with tempfile.TemporaryDirectory(prefix="nifty-") as folder:
        own = Path(folder)
        yield [
            *("podman", "--root", own / "store", "--runroot", own / "run"),
            *("--tmpdir", own / "tmp", "--storage-driver", "vfs", "--events-backend", "none"),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs"),
        ]


def test_podman_runs_it_and_its_init_powers_off(pushed: Pushed, podman: list[str | Path]) -> None:
    image = f"{pushed.host}/nifty:one"
    run([*podman, "pull", "--quiet", "--tls-verify=false", image], timeout=120)
    words = [*podman, "run", "--rm", *LIMITS, image]
    done = run([*words, "sh", "-c", "echo $PATH; busybox uname -m"], timeout=120)
    assert done.stdout == "/bin:/sbin:/usr/bin:/usr/sbin\nx86_64\n"
    run([*podman, "run", "--detach", "--name", "whole", *LIMITS, image, "/sbin/init"], timeout=120)
    try:
        run([*podman, "stop", "--time", "60", "whole"], timeout=120)
        told = run([*podman, "logs", "whole"], timeout=60)
        assert "Requesting system poweroff" in told.stdout + told.stderr
    finally:
        run([*podman, "rm", "--force", "--time", "0", "whole"], timeout=120)
        run([*podman, "rmi", "--all", "--force"], timeout=120)
