"""Which release is the newest, and whether the pinned one is older."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.recipes.component import (
    Budgets,
    Component,
    Extract,
    Https,
    Program,
    Releases,
    Source,
)
from pipeline.builder.upkeep import releases
from pipeline.net.transport import Transport
from tests.support.webserver import Site, serving, status, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = b"""
<a href="thing-1.9.0.tar.bz2">thing-1.9.0.tar.bz2</a>
<a href="thing-1.10.0.tar.bz2">thing-1.10.0.tar.bz2</a>
<a href="thing-1.2.1.tar.bz2.sig">thing-1.2.1.tar.bz2.sig</a>
"""
PATTERN = r'"thing-(\d+\.\d+\.\d+)\.tar\.bz2"'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving(tmp_path) as site:
        yield site


@pytest.fixture
def transport(site: Site) -> Transport:
    return Transport(retries=0, authorities=site.authorities)


def component(name: str, version: str, index: str | None) -> Component:
    return Component(
        name=name,
        version=version,
        licence="MIT",
        homepage="https://example.org/",
        released=date(2026, 1, 1),
        source=Source(file="f", size=1, sha256="0" * 64, unsigned="made up by a test"),
        location=(Https(kind="https", url="https://example.org/f"),),
        releases=Releases(index=index, pattern=PATTERN) if index else None,
        build=Extract(system="prebuilt", architecture="x86_64"),
        program=Program(file="thing", applets=("thing",)),
        budget=Budgets(text=1, file=1),
    )


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9.0", "1.10.0"),
        ("1.38.0", "1.38.1"),
        ("1.38", "1.38.0"),
        ("1.38.0rc1", "1.38.0"),
        ("1.38.0rc1", "1.38.0rc2"),
        ("2025.89", "2026.94"),
        ("2026.9", "2026.94"),
    ],
)
def test_versions_compare_as_people_count(older: str, newer: str) -> None:
    assert releases.order(older) < releases.order(newer)


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("1:1.38.0-3", "1.38.0"),
        ("1:1.38.0-3+b1", "1.38.0"),
        ("2026.94-1", "2026.94"),
        ("2022.83+dfsg-1~deb12u1", "2022.83"),
        ("1.0", "1.0"),
        ("1.0-rc1-2", "1.0-rc1"),
    ],
)
def test_upstreams_part_of_a_debian_version(debian: str, upstream: str) -> None:
    assert releases.upstream(debian) == upstream


def test_the_newest_of_the_index_is_found(site: Site, transport: Transport, tmp_path: Path) -> None:
    site.answers["/"] = [whole(PAGE)]
    thing = component("thing", "1.9.0", site.url("/"))
    assert releases.newest(thing, work=tmp_path, transport=transport) == releases.Newest(
        version="1.10.0", origin=site.url("/")
    )


@pytest.mark.parametrize(("pinned", "expected"), [("1.9.0", True), ("1.10.0", False)])
def test_a_component_is_outdated_when_a_newer_one_is_known(
    site: Site, transport: Transport, tmp_path: Path, *, pinned: str, expected: bool
) -> None:
    site.answers["/"] = [whole(PAGE)]
    (row,) = releases.outdated(
        [component("thing", pinned, site.url("/"))],
        offline=False,
        work=tmp_path,
        transport=transport,
    )
    assert row.is_outdated is expected


def test_a_failing_place_is_the_reason_of_its_row_only(
    site: Site, transport: Transport, tmp_path: Path
) -> None:
    site.answers["/good"] = [whole(PAGE)]
    site.answers["/empty"] = [whole(b"nothing here")]
    site.answers["/gone"] = [status(410)]
    parts = [
        component("good", "1.10.0", site.url("/good")),
        component("empty", "1.9.0", site.url("/empty")),
        component("gone", "1.9.0", site.url("/gone")),
        component("silent", "1.9.0", None),
    ]
    rows = releases.outdated(parts, offline=False, work=tmp_path, transport=transport)
    assert [(row.name, row.newest, row.reason) for row in rows] == [
        ("good", "1.10.0", None),
        ("empty", None, f"{site.url('/empty')}: lists no release that the recipe's pattern finds"),
        ("gone", None, f"{site.url('/gone')}: answers 410 Gone"),
        ("silent", None, "the recipe names neither a release index nor a Debian package"),
    ]


def test_an_index_without_end_is_cut(
    site: Site, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_LARGEST_INDEX", 10)
    site.answers["/"] = [whole(PAGE)]
    with pytest.raises(releases.ReleasesError, match="sends more than 10 bytes"):
        releases.newest(component("thing", "1", site.url("/")), work=tmp_path, transport=transport)


def test_offline_asks_nobody_and_says_so(site: Site, tmp_path: Path) -> None:
    (row,) = releases.outdated(
        [component("thing", "1.9.0", site.url("/"))], offline=True, work=tmp_path
    )
    assert (row.newest, row.reason) == (None, "offline=yes: nobody was asked")
    assert site.requests == []
