"""Known vulnerabilities of the components: the tables beside the recipes, and what they mean here.

A component's `cves.toml` lists what is known of its program; `audit` holds that against the pinned
version, the recipe's patches and its options. What a table does not know it cannot tell.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from pipeline.builder.recipes import kconfig
from pipeline.builder.recipes.component import Autoconf, Kbuild
from pipeline.builder.recipes.fields import Model, Name, Version, Why
from pipeline.builder.upkeep.releases import order
from pipeline.errors import ProblemsError
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component

TABLE = "cves.toml"

CveId = Annotated[str, StringConstraints(pattern=r"^CVE-\d{4}-\d{4,}$")]
Option = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]


class AuditError(ProblemsError):
    """Tables that are broken, or that contradict the recipes; one line each."""


class Cve(Model):
    """One vulnerability: affected are releases from `introduced` (or any) to before `fixed`.

    It needs one of the options `option`, if there are any, and does not exist with `cure` on.
    """

    id: CveId
    introduced: Version | None = None
    fixed: Version | None = None
    where: Annotated[str, StringConstraints(min_length=2)]
    what: Why
    option: tuple[Option, ...] = ()
    cure: Option | None = None
    source: Why


class Elsewhere(Model):
    """Vulnerabilities that whoever compiled a prebuilt component has mended."""

    by: Why
    cves: Annotated[tuple[CveId, ...], Field(min_length=1)]


class Table(Model):
    """A `cves.toml`: rows of its own, or those of another component of the same program.

    Without any, whoever looked on the day `checked` found nothing.
    """

    checked: date
    like: Name | None = None
    cve: tuple[Cve, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.like is not None and self.cve:
            raise ValueError("has [[cve]] tables, or 'like' with a component's name, not both")
        return self


class Status(StrEnum):
    """What a vulnerability means for the component as it is built here."""

    PATCHED = "patched"
    FIXED = "not affected"
    OFF = "not applicable"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one component; `reason` says what the status rests on.

    *checked* is when the component's table was last looked through.
    """

    component: str
    version: str
    cve: Cve
    status: Status
    reason: str
    checked: date


def audit(recipes: Recipes, names: Iterable[str]) -> tuple[Finding, ...]:
    """A finding for each row of the tables of the components *names*, in their order.

    Raises AuditError with every problem: a broken table, none at all, or a patch and a table that
    do not know of each other's CVE.
    """
    problems: list[str] = []
    found: list[Finding] = []
    for name in names:
        component = recipes.components[name]
        table = _read(recipes, component, problems)
        rows = table.cve
        if table.like is not None:
            rows = _borrowed(recipes, component, table.like, problems)
        problems += _contradictions(component, table, rows)
        options = _options(recipes.folder(component), component)
        found += [_judged(component, row, table, options) for row in rows]
    if problems:
        raise AuditError("the tables of vulnerabilities:", problems)
    return tuple(found)


def _borrowed(
    recipes: Recipes, component: Component, name: str, problems: list[str]
) -> tuple[Cve, ...]:
    other = recipes.components.get(name)
    if other is None:
        problems.append(f"{_place(component)}: like: no component {name!r}")
        return ()
    return _read(recipes, other, problems).cve


def _place(component: Component) -> str:
    return f"recipes/components/{component.name}/{TABLE}"


def _read(recipes: Recipes, component: Component, problems: list[str]) -> Table:
    nothing = Table.model_construct(checked=date.min)
    path = recipes.folder(component) / TABLE
    try:
        content = tomllib.loads(path.read_text("utf-8"))
        # by way of JSON, as recipes are read: strict about types, yet dates stay dates
        return Table.model_validate_json(json.dumps(content, default=str))
    except FileNotFoundError:
        problems.append(
            f"{_place(component)}: missing; without it nothing is known of {component.name}"
        )
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{_place(component)}: {error}")
    except ValidationError as error:
        for item in error.errors(include_url=False):
            where = ".".join(map(str, item["loc"])) or "(whole file)"
            problems.append(f"{_place(component)}: {where}: {item['msg']}")
    return nothing


def _contradictions(component: Component, table: Table, rows: tuple[Cve, ...]) -> Iterator[str]:
    known = [row.id for row in rows]
    for twice in sorted({cve for cve in known if known.count(cve) > 1}):
        yield f"{_place(component)}: {twice} stands there twice"
    yield from _unlisted_patches(component, known)
    for item in table.elsewhere:
        for cve in item.cves:
            if cve not in known:
                yield f"{_place(component)}: elsewhere: {cve} is in no row"
    mended = {
        row.id: row for row in rows if row.fixed and order(row.fixed) <= order(component.version)
    }
    for cve in sorted(_patched(component).keys() & mended.keys()):
        yield (
            f"{component.name}: {_patched(component)[cve]} is against {cve}, which {TABLE} says "
            f"{mended[cve].fixed} has fixed"
        )


def _unlisted_patches(component: Component, known: list[str]) -> Iterator[str]:
    for patch in component.patch:
        for cve in patch.cves:
            if cve not in known:
                yield f"{_place(component)}: {cve} is missing, which {patch.file} is against"
        for cve in re.findall(r"CVE-\d{4}-\d{4,}", patch.file):
            if cve not in patch.cves:
                yield f"{component.name}: {patch.file}: its name has {cve}, its 'cves' have not"


def _patched(component: Component) -> Mapping[str, str]:
    """Each CVE that a patch of the recipe is against, and the patch."""
    return {cve: patch.file for patch in component.patch for cve in patch.cves}


def _options(folder: Path, component: Component) -> Mapping[str, bool]:
    """What the recipe says of options, true for on; compiling has checked that the build obeys."""
    build = component.build
    if isinstance(build, Kbuild):
        lines = beneath(folder, build.fragment).read_text("utf-8").splitlines()
        return {name: not line.startswith("#") for line in lines if (name := kconfig.key(line))}
    if isinstance(build, Autoconf):
        text = "".join(beneath(folder, header).read_text("utf-8") for header in build.headers)
        defined = re.findall(r"^#define[ \t]+(\w+)[ \t]+([01])\b", text, re.MULTILINE)
        return {name: value == "1" for name, value in defined}
    return {}


def _judged(component: Component, row: Cve, table: Table, options: Mapping[str, bool]) -> Finding:
    status, reason = _status(component, row, table, options)
    return Finding(
        component=component.name,
        version=component.version,
        cve=row,
        status=status,
        reason=reason,
        checked=table.checked,
    )


def _status(
    component: Component, row: Cve, table: Table, options: Mapping[str, bool]
) -> tuple[Status, str]:
    version = component.version
    if row.fixed is not None and order(row.fixed) <= order(version):
        return Status.FIXED, f"fixed in {row.fixed}"
    if row.introduced is not None and order(version) < order(row.introduced):
        return Status.FIXED, f"came with {row.introduced}"
    if row.id in (patches := _patched(component)):
        return Status.PATCHED, patches[row.id]
    for item in table.elsewhere:
        if row.id in item.cves:
            return Status.PATCHED, item.by
    if row.cure is not None and options.get(row.cure):
        return Status.OFF, f"{row.cure} is on"
    if row.option and not any(options.get(name, True) for name in row.option):
        return Status.OFF, f"off: {', '.join(row.option)}"
    return Status.OPEN, f"{row.fixed} has the fix" if row.fixed else "no release has a fix"
