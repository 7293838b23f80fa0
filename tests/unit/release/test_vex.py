"""VEX: valid by OpenVEX's own schema, each vulnerability once, as the audit judges it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.builder.upkeep import audit
from pipeline.builder.upkeep.audit import Status
from pipeline.paths import PROJECT
from pipeline.release import identifiers, vex
from pipeline.release.origin import OriginError
from pipeline.run import CLEAN_ENVIRONMENT, run
from tests.support.release import RECIPES, described

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = PROJECT / "tests/support/openvex/openvex_json_schema.json"
OCI = identifiers.oci("nifty", f"sha256:{'1' * 64}")


def table(image: str = "nifty") -> Any:
    return json.loads(vex.vex(described(image), RECIPES))


def check(folder: Path, *documents: bytes) -> str:
    """What check-jsonschema says of *documents*, all together: to start it takes seconds."""
    paths = [folder / f"{number}.json" for number, _ in enumerate(documents)]
    for path, document in zip(paths, documents, strict=True):
        path.write_bytes(document)
    words = ["-m", "check_jsonschema", "--schemafile", str(SCHEMA), *map(str, paths)]
    told = run([sys.executable, *words], env=CLEAN_ENVIRONMENT, check=False)
    return f"{told.returncode} {told.stdout}{told.stderr}"


@pytest.mark.timeout(300)  # starts a checker twice, which imports for seconds
def test_it_is_valid(tmp_path: Path) -> None:
    made = [vex.vex(described(image), RECIPES, images=[OCI]) for image in RECIPES.images]
    assert check(tmp_path, *made) == "0 ok -- validation done\n"
    broken = json.loads(made[0])
    del broken["statements"][0]["status"]
    assert check(tmp_path, json.dumps(broken).encode()).startswith("1 ")


@pytest.mark.parametrize("image", tuple(RECIPES.images))
def test_each_vulnerability_of_a_component_is_told_once(image: str) -> None:
    told = Counter(
        (one["products"][0]["@id"], one["vulnerability"]["name"])
        for one in table(image)["statements"]
    )
    assert set(told.values()) == {1}
    components = (RECIPES.components[name] for name in RECIPES.images[image].components)
    assert set(told) == {
        (identifiers.purl(item.name, item.version), finding.cve.id)
        for item in components
        for finding in audit.audit(RECIPES, [item.name])
    }


def test_what_the_judgements_become() -> None:
    told = {
        (one["products"][0]["@id"], one["vulnerability"]["name"]): one
        for one in table()["statements"]
    }
    seen = set()
    for finding in audit.audit(RECIPES, RECIPES.images["nifty"].components):
        one = told[identifiers.purl(finding.component, finding.version), finding.cve.id]
        assert finding.reason in one["status_notes"]
        assert one["timestamp"] == f"{finding.checked}T00:00:00+00:00"
        seen.add((finding.status, one["status"], one.get("justification")))
    assert seen == {
        (Status.PATCHED, "fixed", None),
        (Status.FIXED, "fixed", None),
        (Status.OFF, "not_affected", "vulnerable_code_not_present"),
    }


def test_what_is_open_says_what_to_do() -> None:
    finding = replace(
        audit.audit(RECIPES, ["busybox"])[0], status=Status.OPEN, reason="9.9 has the fix"
    )
    assert vex._judgement(finding)["status"] == "affected"
    assert vex._judgement(finding)["action_statement"] == "9.9 has the fix"


def test_what_came_later_is_not_there() -> None:
    first = audit.audit(RECIPES, ["busybox"])[0]
    later = first.cve.model_copy(update={"introduced": "99", "fixed": "100"})
    finding = replace(first, cve=later, status=Status.FIXED, reason="came with 99")
    assert vex._judgement(finding) == {
        "status": "not_affected",
        "justification": "vulnerable_code_not_present",
        "status_notes": "came with 99",
    }


def test_products_are_called_as_in_the_bill_of_materials() -> None:
    found = json.loads(vex.vex(described(), RECIPES, images=[OCI]))["statements"][0]["products"]
    own = {
        "@id": "pkg:generic/busybox@1.38.0",
        "identifiers": {
            "purl": "pkg:generic/busybox@1.38.0",
            "cpe23": "cpe:2.3:a:busybox:busybox:1.38.0:*:*:*:*:*:*:*",
        },
    }
    assert found == [own, {"@id": OCI, "subcomponents": [own]}]
    assert f"pkg:oci/nifty@sha256%3A{'1' * 64}" == OCI


def test_the_same_bytes_each_time_and_another_name_for_other_statements() -> None:
    assert vex.vex(described(), RECIPES) == vex.vex(described(), RECIPES)
    other = json.loads(vex.vex(described(), RECIPES, author="somebody else"))
    assert other["@id"] != table()["@id"]


def test_an_image_of_other_recipes_is_refused() -> None:
    old = described()
    first, second, third = old.components
    parts = (
        first.model_copy(update={"version": "1.37.0"}),
        second.model_copy(update={"patches": ()}),
        third.model_copy(update={"name": "gone"}),
    )
    with pytest.raises(OriginError, match="nifty was not made of these recipes") as caught:
        vex.vex(old.model_copy(update={"components": parts}), RECIPES)
    assert [line.partition(" of the image")[0] for line in caught.value.problems] == [
        "busybox: the version",
        "dropbear: the patches",
        "gone: there is no such component",
    ]
