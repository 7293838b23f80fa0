"""The audit: real tables agree with the real recipes, and each status rests on what it should."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.recipes import catalogue
from pipeline.builder.upkeep import audit as auditing
from pipeline.builder.upkeep.audit import AuditError, Status
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.builder.upkeep.audit import Finding

PATCHED = "CVE-2026-38754"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A copy of the real recipes that a test may change."""
    return shutil.copytree(PROJECT / "recipes", tmp_path / "recipes")


def found(root: Path, component: str) -> dict[str, Finding]:
    return {one.cve.id: one for one in auditing.audit(catalogue.load(root), [component])}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(root: Path, component: str = "busybox") -> tuple[str, ...]:
    with pytest.raises(AuditError) as caught:
        found(root, component)
    return caught.value.problems


def test_default_image_has_nothing_open() -> None:
    known = catalogue.load(PROJECT / "recipes")
    rows = auditing.audit(known, known.images["nifty"].components)
    assert [one.cve.id for one in rows if one.status is Status.OPEN] == []


@pytest.mark.parametrize(
    ("component", "cve", "status"),
    [
        ("busybox", PATCHED, Status.PATCHED),
        ("busybox", "CVE-2021-42374", Status.FIXED),
        ("busybox", "CVE-2018-1000500", Status.OFF),
        ("busybox", "CVE-2023-39810", Status.OFF),
        ("dropbear", "CVE-2025-14282", Status.FIXED),
        ("busybox-static", "CVE-2022-28391", Status.OPEN),
        ("busybox-static", PATCHED, Status.PATCHED),
    ],
)
def test_status(component: str, cve: str, status: Status) -> None:
    assert found(PROJECT / "recipes", component)[cve].status is status


def test_option_that_is_switched_on_opens(recipes: Path) -> None:
    config = recipes / "components/busybox/config"
    replaced(config, "# CONFIG_SSL_CLIENT is not set", "CONFIG_SSL_CLIENT=y")
    assert found(recipes, "busybox")["CVE-2018-1000500"].status is Status.OPEN


def test_cure_that_is_left_out_opens(recipes: Path) -> None:
    config = recipes / "components/busybox/config"
    replaced(config, "CONFIG_FEATURE_PATH_TRAVERSAL_PROTECTION=y", "")
    assert found(recipes, "busybox")["CVE-2023-39810"].status is Status.OPEN


@pytest.mark.parametrize(
    ("version", "status"),
    [("2024.83", Status.FIXED), ("2024.84", Status.OFF), ("2025.89", Status.FIXED)],
)
def test_older_version_counts_and_so_does_a_header(
    recipes: Path, version: str, status: Status
) -> None:
    replaced(recipes / "components/dropbear/recipe.toml", '"2026.94"', f'"{version}"')
    assert found(recipes, "dropbear")["CVE-2025-14282"].status is status


def test_row_without_a_release_that_has_the_fix_is_open(recipes: Path) -> None:
    table = recipes / "components/dropbear/cves.toml"
    with table.open("a") as file:
        file.write('[[cve]]\nid = "CVE-2030-1000"\nwhere = "scp"\n')
        file.write('what = "made up for a test"\nsource = "made up for a test"\n')
    assert found(recipes, "dropbear")["CVE-2030-1000"].status is Status.OPEN


def test_patch_that_the_table_does_not_know_is_a_problem(recipes: Path) -> None:
    replaced(recipes / "components/busybox/cves.toml", f'id = "{PATCHED}"', 'id = "CVE-2030-1000"')
    assert [line for line in refused(recipes) if f"{PATCHED} is missing" in line] != []


def test_patch_whose_name_says_more_than_its_entry_is_a_problem(recipes: Path) -> None:
    replaced(recipes / "components/busybox/recipe.toml", f'cves = ["{PATCHED}"]', "cves = []")
    assert [line for line in refused(recipes) if f"its name has {PATCHED}" in line] != []


def test_patch_against_what_the_version_has_fixed_is_a_problem(recipes: Path) -> None:
    table = recipes / "components/busybox/cves.toml"
    replaced(table, f'id = "{PATCHED}"\n', f'id = "{PATCHED}"\nfixed = "1.38.0"\n')
    assert [line for line in refused(recipes) if "1.38.0 has fixed" in line] != []


def test_missing_table_is_a_problem(recipes: Path) -> None:
    (recipes / "components/busybox/cves.toml").unlink()
    assert "nothing is known of busybox" in refused(recipes)[0]


def test_a_table_may_say_that_nothing_is_known(recipes: Path) -> None:
    (recipes / "components/dropbear/cves.toml").write_text("checked = 2026-11-29\n")
    assert found(recipes, "dropbear") == {}


def test_a_table_has_rows_of_its_own_or_anothers(recipes: Path) -> None:
    table = recipes / "components/dropbear/cves.toml"
    table.write_text(f'like = "busybox"\n{table.read_text()}')
    assert any("not both" in line for line in refused(recipes, "dropbear"))


def test_misspelt_key_is_told_with_its_place(recipes: Path) -> None:
    replaced(recipes / "components/dropbear/cves.toml", 'where = "server"', 'were = "server"')
    assert any("cve.0.were" in line for line in refused(recipes, "dropbear"))


def test_row_stands_there_once(recipes: Path) -> None:
    table = recipes / "components/dropbear/cves.toml"
    replaced(table, "CVE-2018-20685", "CVE-2018-15599")
    assert any("stands there twice" in line for line in refused(recipes, "dropbear"))


def test_rows_are_json() -> None:
    rows = found(PROJECT / "recipes", "dropbear").values()
    assert json.loads(json.dumps([row.cve.model_dump(mode="json") for row in rows]))
