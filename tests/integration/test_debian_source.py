"""Debian as a location: apt's own client, a private configuration, the pinned bytes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.recipes import catalogue
from pipeline.builder.recipes.component import DebianBinary, DebianSource
from pipeline.builder.sources import debian, fetch, signature
from pipeline.builder.sources.store import Store
from pipeline.builder.upkeep import releases
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("apt-get"), reason="apt's client is Debian's"),
]


@pytest.fixture(scope="module")
def recipes() -> Recipes:
    return catalogue.load(PROJECT / "recipes")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests here, so that a suite's lists are fetched once."""
    return tmp_path_factory.mktemp("apt")


def from_debian(component: Component) -> Component:
    """*component* with its Debian source package as the only location."""
    location = tuple(place for place in component.location if isinstance(place, DebianSource))
    return component.model_copy(update={"location": location})


@pytest.mark.parametrize("name", ["busybox", "dropbear"])
def test_the_source_package_carries_the_pinned_signed_file(
    recipes: Recipes, name: str, work: Path, tmp_path: Path
) -> None:
    component = from_debian(recipes.components[name])
    path = fetch.fetch(
        component,
        recipes.folder(component),
        Store(root=tmp_path / "store"),
        offline=False,
        work=work,
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == component.source.sha256


def test_a_binary_package_comes_in_the_version_asked_for(work: Path) -> None:
    asked = DebianBinary(
        kind="debian-binary",
        package="busybox-static",
        version="0",
        suite="sid",
        architecture="arm64",
    )
    newest = debian.versions(asked, work=work)[0]
    asked = asked.model_copy(update={"version": newest})
    with debian.downloaded(asked, work=work) as files:
        assert [path.read_bytes()[:8] for path in files] == [b"!<arch>\n"]


def test_a_version_the_suite_no_longer_has_is_named_beside_the_one_it_has(work: Path) -> None:
    asked = DebianSource(kind="debian-source", package="dropbear", version="0.1-1", suite="sid")
    has = " and ".join(sorted(debian.versions(asked, work=work)))
    with pytest.raises(debian.AptError) as caught, debian.downloaded(asked, work=work):
        pass
    assert caught.value.message == f"suite sid has {has}, the recipe wants 0.1-1"


def test_a_suite_that_does_not_exist_is_one_line(work: Path) -> None:
    asked = DebianSource(kind="debian-source", package="dropbear", version="1", suite="no-such")
    with pytest.raises(debian.AptError) as caught, debian.downloaded(asked, work=work):
        pass
    assert "no-such" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_download_is_gone_afterwards(recipes: Recipes, work: Path) -> None:
    (location,) = from_debian(recipes.components["dropbear"]).location
    assert isinstance(location, DebianSource)
    with debian.downloaded(location, work=work) as files:
        assert files
    assert not any(path.exists() for path in files)


def host_state() -> list[tuple[str, int, int]]:
    """Name, time and size of everything apt keeps on the host."""
    roots = ("/etc/apt", "/var/lib/apt", "/var/cache/apt")
    paths = [path for root in roots for path in Path(root).rglob("*")]
    return sorted(
        (str(path), path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in paths
        # another program on this machine may be reading the lists: only what is kept counts
        if path.name != "lock"
    )


def test_the_hosts_own_apt_is_not_touched(recipes: Recipes, tmp_path: Path) -> None:
    (location,) = from_debian(recipes.components["dropbear"]).location
    assert isinstance(location, DebianSource)
    before = host_state()
    with debian.downloaded(location, work=tmp_path):
        pass
    assert host_state() == before


def _as_nobody(location: DebianSource, work: Path, answer: Path) -> None:
    """Runs in a child process: everything is imported, since nobody may not read /root."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    with debian.downloaded(location, work=work) as files:
        answer.write_text("".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder any user may write to: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_an_ordinary_user_needs_no_root(recipes: Recipes, public_folder: Path) -> None:
    component = from_debian(recipes.components["dropbear"])
    answer = public_folder / "answer"
    child = multiprocessing.get_context("fork").Process(
        target=_as_nobody, args=(component.location[0], public_folder / "apt", answer)
    )
    child.start()
    child.join()
    assert answer.read_text() == component.source.sha256


def _fetch(component: Component, folder: Path, store: Store, work: Path) -> None:
    fetch.fetch(component, folder, store, offline=False, work=work)


def test_two_processes_fetch_the_same_file_at_once(
    recipes: Recipes, work: Path, tmp_path: Path
) -> None:
    component = from_debian(recipes.components["dropbear"])
    store = Store(root=tmp_path / "store")
    children = [
        multiprocessing.get_context("fork").Process(
            target=_fetch, args=(component, recipes.folder(component), store, work)
        )
        for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(path.name for path in store.root.iterdir()) == [
        ".lock",
        f"{component.source.sha256}-{component.source.file}",
    ]


def test_busyboxs_own_signature_needs_the_recipes_word_for_dsa(
    recipes: Recipes, work: Path, tmp_path: Path
) -> None:
    component = from_debian(recipes.components["busybox"])
    assert component.source.signature is not None
    plain = component.source.signature.model_copy(update={"dsa": None})
    source = component.source.model_copy(update={"signature": plain})
    with pytest.raises(signature.SignatureError, match="no valid signatures"):
        fetch.fetch(
            component.model_copy(update={"source": source}),
            recipes.folder(component),
            Store(root=tmp_path / "store"),
            offline=False,
            work=work,
        )


def test_debian_tells_the_newest_release_when_upstream_does_not(
    recipes: Recipes, work: Path
) -> None:
    component = recipes.components["dropbear"].model_copy(update={"releases": None})
    found = releases.newest(component, work=work)
    assert found.origin == "Debian sid"
    assert releases.order(found.version) >= releases.order(component.version)
