"""What is pushed, looked at by others: Debian's registry, and skopeo."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.net import login, reference
from pipeline.net import registry as protocol
from pipeline.net.registry import Registry
from pipeline.net.session import RegistryError
from pipeline.release import oci, referrers, registry
from pipeline.release.place import place
from pipeline.release.stored import Client
from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.trust import keyring
from tests.support import signers, stored
from tests.support.oci_image import noise, oci_image
from tests.support.registry import PASSWORD, USER, fetched, real
from tests.support.signers import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require("docker-registry", "skopeo")
    with real(tmp_path_factory.mktemp("registry")) as address:
        yield address


def raw(host: str, name: str) -> bytes:
    """The bytes of manifest *name*, as skopeo has them."""
    words = ("inspect", "--tls-verify=false", "--raw", f"docker://{host}/{name}")
    return run(["skopeo", *words], timeout=120).stdout.encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_skopeo_copies_all_of_it_there_and_back(host: str, tmp_path: Path) -> None:
    """Referrers are below the fallback tag: this registry has no list of them."""
    made = oci.index([oci_image("x86_64"), oci_image("aarch64")])
    about = referrers.of_documents(made, {"SHA256SUMS": b"sums", "SHA256SUMS.gpg": b"signature"})
    with Registry(reference.parse(f"oci://{host}/nifty"), writes=True) as opened:
        assert registry.push(opened, made, about, ("one", "two")).moved == ("one", "two")
        assert registry.push(opened, made, about, ("one", "two")).sent == 0
    assert digest(raw(host, "nifty:two")) == made.blob.digest
    listed = json.loads(raw(host, f"nifty:{referrers.fallback_tag(made.blob.digest)}"))["manifests"]
    assert listed == [dict(one.descriptor) for one in about]
    words = ("skopeo", "copy", "--all", "--preserve-digests")
    layout = f"oci:{tmp_path / 'layout'}:x"
    run([*words, "--src-tls-verify=false", f"docker://{host}/nifty:one", layout], timeout=120)
    run([*words, "--dest-tls-verify=false", layout, f"docker://{host}/copy:x"], timeout=120)
    assert digest(raw(host, "copy:x")) == made.blob.digest
    copy = reference.parse(f"oci://{host}/copy:x")
    assert fetched(copy, "aarch64") == oci_image("aarch64").archive


def test_a_signed_release_is_taken_from_a_real_registry_and_goes_on(
    host: str, tmp_path: Path
) -> None:
    made = stored.release()
    stored.push(made, reference.parse(f"oci://{host}/signed"), "2026.11")
    ring = keyring.read(stored.SIGNER.certificate, name="ours")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / f"{made.sha256}.part").write_bytes(made.image.archive[:100])
    client = Client(cache=tmp_path / "cache", machine=stored.MACHINE, now=signers.NOW)
    pulled = client.signed(place(f"oci://{host}/signed:2026.11"), ring)
    assert pulled.path.read_bytes() == made.image.archive
    pinned = client.pinned(place(f"oci://{host}/signed@{made.index.blob.digest}"))
    assert pinned.path == pulled.path


def test_the_login_that_skopeo_leaves_is_used(tmp_path: Path) -> None:
    require("docker-registry", "skopeo")
    folder = tmp_path / "registry"
    folder.mkdir()
    kept = tmp_path / "auth.json"
    made = oci.index([oci_image()])
    with real(folder, login=True) as host:
        words = ("login", "--tls-verify=false", "--authfile", kept, "--password-stdin")
        run(["skopeo", *words, "--username", USER, host], stdin=PASSWORD.encode())
        to = reference.parse(f"oci://{host}/nifty:x")
        with (
            Registry(to, writes=True) as opened,
            pytest.raises(RegistryError, match="answers 401: UNAUTHORIZED"),
        ):
            registry.push(opened, made, (), ("x",))
        environment = {**CLEAN_ENVIRONMENT, "REGISTRY_AUTH_FILE": str(kept)}
        found = login.find(host, "nifty", environment)
        with Registry(to, login=found, writes=True) as opened:
            assert registry.push(opened, made, (), ("x",)).moved == ("x",)
        assert fetched(to, login=found) == oci_image().archive


def test_a_large_blob_goes_in_pieces(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_WHOLE", 100_000)
    monkeypatch.setattr(protocol, "_PIECE", 100_000)
    content = noise(350_000)
    with Registry(reference.parse(f"oci://{host}/pieces"), writes=True) as opened:
        assert opened.put_blob(digest(content), content)
        assert not opened.put_blob(digest(content), content)
        assert opened.get_blob(digest(content), len(content)) == content
