"""`doit ci`: the files for forges, and where they go; what schemas and zizmor say of them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from pipeline import settings as variables
from pipeline.commands import ci
from pipeline.errors import NiftyError, UsageError
from pipeline.paths import PROJECT
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

# where each lies, and the schema that check-jsonschema brings along
PLACES = {
    "github": (".github/workflows/nifty.yml", "vendor.github-workflows"),
    "gitlab": (".gitlab-ci.yml", "vendor.gitlab-ci"),
}


def doit_ci(**given: object) -> None:
    words = {name: str(value) for name, value in given.items()}
    ci.run(variables.parse(words, images=["nifty", "mine"]))


@pytest.fixture(params=PLACES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_it_is_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    doit_ci(kind=kind, image="mine")
    printed = capsys.readouterr().out
    assert "  IMAGE: mine\n" in printed
    assert printed.replace("  IMAGE: mine\n", "  IMAGE: nifty\n") == ci.of(kind, "nifty")
    # it says itself how it is made
    assert f"# doit ci kind={kind} to={PLACES[kind][0]}\n" in printed
    assert len(printed.splitlines()) <= 88


def test_another_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / PLACES["github"][0]
    doit_ci(kind="github", to=path)
    assert capsys.readouterr().out == f"{path}\n"
    doit_ci(kind="github", to=path)
    assert capsys.readouterr().err == f"{path}: there already, nothing to do\n"
    with pytest.raises(NiftyError, match="there is another file"):
        doit_ci(kind="gitlab", to=path)
    assert path.read_text() == ci.of("github", "nifty")
    doit_ci(kind="gitlab", to=path, overwrite="yes")
    assert path.read_text() == ci.of("gitlab", "nifty")


def test_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="for which forge"):
        doit_ci()
    with pytest.raises(UsageError, match="the name of a recipe"):
        doit_ci(kind="github", image="/tmp/x.tar.zst")


def test_it_is_what_the_forge_reads(kind: str) -> None:
    words = ("-m", "check_jsonschema", "--builtin-schema", PLACES[kind][1])
    path = ci.FOLDER / ("github.yml" if kind == "github" else "gitlab-ci.yml")
    assert "ok" in run([sys.executable, *words, path]).stdout


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    """But for the cache of downloads, whose every file is hashed; the file itself says that."""
    path = tmp_path / PLACES["github"][0]
    doit_ci(kind="github", to=path)
    zizmor = str(Path(sys.executable).with_name("zizmor"))
    words = [zizmor, "--offline", "--strict-collection", str(tmp_path)]
    assert "1 ignored" in run(words).stdout
    # it would find something
    path.write_text(path.read_text().replace("persist-credentials: false", "show-progress: false"))
    done = run(words, check=False)
    assert done.returncode != 0
    assert "artipacked" in done.stdout


def test_nothing_is_taken_by_a_name_alone() -> None:
    for kind in PLACES:
        text = ci.of(kind, "nifty")
        used = re.findall(r"(?:uses|image|container): (\S+)", text)
        assert used
        for name in used:
            assert re.search(r"@([0-9a-f]{40}|sha256:[0-9a-f]{64})$", name)
        # with the secret in the job's last hands alone
        assert text.count("secrets.") == (kind == "github")
        assert "pull_request_target" not in text


def test_both_forges_are_told_the_same() -> None:
    """The file for GitLab is run (tests/integration/test_forge.py), that for GitHub cannot be."""
    told = {kind: sorted(_commands(ci.of(kind, "nifty"))) for kind in PLACES}
    assert told["github"] == told["gitlab"]
    assert [words.split()[0] for words in told["github"]] == ["build", "build", "push", "run"]
    for words in told["github"]:
        given = dict(part.split("=", 1) for part in words.split() if "=" in part and part[0] != "$")
        assert given.keys() <= variables.Settings.__dataclass_fields__.keys()


def _commands(text: str) -> Iterator[str]:
    """The words of `doit`, without the values that only one of the forges knows."""
    for words in re.findall(r"\.venv/bin/doit (.*)", text):
        yield re.sub(r"\b(url|to)=\S+", r"\1=", words)


def test_the_lock_file_is_of_what_pyproject_asks_for() -> None:
    """docs/build.md says how it is renewed."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    text = (ci.FOLDER / "requirements.txt").read_text()
    entries = re.split(r"\n(?=\w)", text.partition("--only-binary :all:\n")[2].strip())
    locked = {}
    for entry in entries:
        name, version = entry.split()[0].split("==")
        locked[name] = version
        assert "--hash=sha256:" in entry
    assert "ziglang" in locked
    for line in (*project["dependencies"], *extras["build"], *extras["publish"]):
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[wanted.name])
