"""Checkouts of this project: the real one, built once, and copies that a test may break.

A plugin: a test module that uses it names it in `pytest_plugins`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from pipeline.builder.recipes import catalogue
from pipeline.paths import PROJECT
from pipeline.run import Completed, run
from tests.support.tiny import write_recipes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# what doit needs of a checkout
PARTS = ("dodo.py", "pyproject.toml", "pipeline", "recipes")
# a user that owns nothing and has no name
STRANGER = 12345


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A folder with dodo.py, its artifacts, and the interpreter of these tests to run doit."""

    root: Path

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        return self.artifacts / "cache"

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "doit", *words]

    def doit(
        self,
        *words: str,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        umask: int = 0o022,
    ) -> Completed:
        """What `doit *words*` printed; it must have ended with *code*."""
        done = run(
            [*prefix, *self.argv(*words)],
            cwd=self.root,
            env=os.environ if env is None else env,
            umask=umask,
            timeout=800,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert code == 3 or "Traceback" not in done.stderr, done.stderr
        return done

    def sums(self) -> dict[str, str]:
        """SHA256SUMS as digests by name."""
        lines = (self.artifacts / "SHA256SUMS").read_text().splitlines()
        return {name: digest for digest, name in (line.split("  ") for line in lines)}

    def log(self, component: str) -> Path:
        """What compiling *component* printed; it is made anew each time that really happens."""
        return self.cache / "log" / f"{component}.log"


class Copier(Protocol):
    """Makes a checkout in a folder, without anything built."""

    def __call__(self, root: Path, /) -> Checkout: ...


def copied(root: Path) -> Checkout:
    """A checkout in *root*, which may hold an older one, without anything built."""
    root.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source, target = PROJECT / part, root / part
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    # somebody's unfinished recipe is no matter of these tests
    for line in catalogue.load(PROJECT / "recipes").problems:
        (root / line.partition(": ")[0]).unlink(missing_ok=True)
    (root / "artifacts").mkdir(exist_ok=True)
    return Checkout(root=root)


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    """This very checkout, after `doit build`: downloads, verifies, compiles what is not there."""
    real = Checkout(root=PROJECT)
    real.doit("build", "image=nifty", "arch=x86_64")
    return real


@pytest.fixture(scope="session")
def copy_project() -> Copier:
    """Checkouts without anything built, which stay."""
    return copied


@pytest.fixture(scope="session")
def prebuilt(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout after `doit build image=nifty-prebuilt`; the real one keeps the download."""
    words = ("image=nifty-prebuilt", "arch=x86_64")
    checkout.doit("fetch", *words)
    made = copied(tmp_path_factory.mktemp("prebuilt") / "checkout")
    bring_along(checkout, made, "store", "cache/compiled")
    made.doit("build", *words)
    return made


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder every user may enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="nifty-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Cloner(Protocol):
    """Makes a copy of the built checkout; compiled components and downloads come along."""

    def __call__(self, name: str = ..., *, apt: bool = ...) -> Checkout: ...


@pytest.fixture
def clone(checkout: Checkout, public_folder: Path) -> Cloner:
    """Copies in a folder of the given name; with *apt* also the package lists, to save minutes."""

    def copy(name: str = "clone", *, apt: bool = False) -> Checkout:
        made = copied(public_folder / name)
        bring_along(checkout, made, "store", "cache/compiled", *(["cache/apt"] if apt else []))
        return made

    return copy


@pytest.fixture
def tiny(public_folder: Path) -> Checkout:
    """A checkout whose image has two programs of a few lines, so that compiling takes a moment."""
    made = copied(public_folder / "tiny")
    shutil.rmtree(made.root / "recipes" / "components")
    write_recipes(made.root)
    share_libc(made)
    return made


def bring_along(checkout: Checkout, made: Checkout, *parts: str) -> None:
    """Copy *parts* of the artifacts to *made*, and let it use the same musl."""
    for part in parts:
        if (checkout.artifacts / part).is_dir():
            shutil.copytree(checkout.artifacts / part, made.artifacts / part, symlinks=True)
    share_libc(made)


def share_libc(made: Checkout) -> None:
    """Let *made* use the musl that the real checkout has made already."""
    shared = PROJECT / "artifacts" / "cache" / "musl"
    shared.mkdir(parents=True, exist_ok=True)
    made.cache.mkdir(parents=True, exist_ok=True)
    (made.cache / "musl").symlink_to(shared)


@pytest.fixture(scope="session")
def as_stranger() -> tuple[str, ...]:
    """The words before a command that run it as an unprivileged user."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    return stranger()


@pytest.fixture(scope="session")
def as_anybody() -> tuple[str, ...]:
    """As `as_stranger`, or nothing where these tests are run by an ordinary user anyway."""
    return stranger() if os.geteuid() == 0 else ()


def stranger() -> tuple[str, ...]:
    change = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")
    # where the interpreter lies in root's home, reading it is the one right that is kept
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for words in (change, (*change, *reading)):
        tried = run(
            [*words, sys.executable, "-c", "import doit, pipeline"], cwd=PROJECT, check=False
        )
        if tried.returncode == 0:
            return words
    return pytest.skip(f"another user cannot run {sys.executable} here: {tried.stderr}")
