"""`doit verify` of a directory and of a server: every check on stdout, an error if one fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline import settings as variables
from pipeline.commands import verify as command
from pipeline.errors import NiftyError, UsageError
from pipeline.release import keys
from tests.support import signers, webserver
from tests.support.published import FIRST, put, stem

if TYPE_CHECKING:
    from pathlib import Path

SIGNER = signers.signer()


def doit_verify(**given: str) -> None:
    words = {"from" if name == "source" else name: text for name, text in given.items()}
    command.run(variables.parse(words, images=["nifty"]))


@pytest.fixture
def ring(tmp_path: Path) -> str:
    (tmp_path / "ring.pgp").write_bytes(SIGNER.certificate)
    return str(tmp_path / "ring.pgp")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    put(tmp_path / "r", FIRST, signing=keys.load("t", SIGNER.made.signing, {}, signers.NOW))
    return tmp_path / "r"


@pytest.mark.parametrize("place", ["directory", "server"])
def test_a_good_release_passes_and_a_changed_one_does_not(
    release: Path, ring: str, tmp_path: Path, place: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with webserver.serving(tmp_path) as site:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authorities))
        for path in release.iterdir():
            site.answers[f"/r/{path.name}"] = [webserver.whole(path.read_bytes())]
        source = str(release) if place == "directory" else site.url("/r")
        doit_verify(source=source, keyring=ring, format="json")
        good = {one["name"]: one["is_right"] for one in json.loads(capsys.readouterr().out)}
        assert set(good.values()) == {True}
        assert f"image {stem()}.tar.zst" in good
        changed = release / f"{stem()}.tar.xz"
        content = changed.read_bytes()[:-1] + b"?"
        changed.write_bytes(content)
        site.answers[f"/r/{changed.name}"] = [webserver.whole(content)]
        with pytest.raises(NiftyError, match=r"\d of \d+ checks failed"):
            doit_verify(source=source, keyring=ring)
        told = capsys.readouterr().out.splitlines()
        assert next(line.split()[1] for line in told if line.startswith("FAIL")) == changed.name


def test_a_server_that_sends_without_end_is_left(
    ring: str, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webserver.serving(tmp_path) as site:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authorities))
        for path in release.iterdir():
            site.answers[f"/r/{path.name}"] = [webserver.whole(path.read_bytes())]
        site.answers["/r/SHA256SUMS"] = [webserver.endless(chunked=True)]
        with pytest.raises(NiftyError, match="sends more than 1048576 bytes"):
            doit_verify(source=site.url("/r"), keyring=ring)


def test_what_is_missing_is_asked_for(ring: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="verify what"):
        doit_verify(keyring=ring)
    with pytest.raises(UsageError, match="signed by whom"):
        doit_verify(source=str(tmp_path))
    with pytest.raises(NiftyError, match="no such directory"):
        doit_verify(source=str(tmp_path / "nowhere"), keyring=ring)
    with pytest.raises(UsageError, match="only https: is used"):
        doit_verify(source="http://x.org/", keyring=ring)
