"""docs/recipes.md has every key of the recipes, where it belongs, and no other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

import pytest

from pipeline.builder.recipes.component import Component
from pipeline.builder.recipes.fields import Model
from pipeline.builder.recipes.image import Account, ExtraFile, Image
from pipeline.builder.upkeep import audit
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (PROJECT / "docs" / "recipes.md").read_text("utf-8")
FILES: dict[str, type[Model]] = {
    "An image: `recipes/images/NAME.toml`": Image,
    "A component: `recipes/components/NAME/recipe.toml`": Component,
    "Its vulnerabilities: `recipes/components/NAME/cves.toml`": audit.Table,
}
# tables that are a component's as well, which the page tells once
TWICE = ("[package.source]", "[[package.location]]")


def models(annotation: object, *, many: bool = False) -> Iterator[tuple[type[Model], bool]]:
    """The models in *annotation*, and whether there may be several."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation, many
    is_tuple = getattr(annotation, "__origin__", None) is tuple
    for inner in get_args(annotation):
        yield from models(inner, many=many or is_tuple)


def expected(model: type[Model], at: str = "") -> Iterator[tuple[str, type[Model]]]:
    """Each table below *model* as its heading, and what may stand there."""
    for name, field in model.model_fields.items():
        found = list(models(field.annotation))
        for inner, many in found:
            path = f"{at}{name}"
            heading = f"[[{path}]]" if many else f"[{path}]"
            if heading in TWICE:
                continue
            kinds = [one for one in ("kind", "system") if one in inner.model_fields]
            if len(found) > 1:
                (word,) = get_args(inner.model_fields[kinds[0]].annotation)
                yield f'`{heading}` with `{kinds[0]} = "{word}"`', inner
            else:
                yield f"`{heading}`", inner
            yield from expected(inner, f"{path}.")


def sections(level: str, text: str) -> dict[str, str]:
    parts = re.split(rf"(?m)^{level} (.*)$", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> dict[str, str]:
    """The keys of a table and what is said of leaving each out."""
    return dict(re.findall(r"(?m)^\| `(\w+)` \|.*\| ?([^|]*?) ?\|$", text.partition("\n###")[0]))


def test_the_page_has_the_tables_of_the_recipes_and_no_others() -> None:
    assert list(sections("##", PAGE)) == list(FILES)
    for title, model in FILES.items():
        there = list(sections("###", sections("##", PAGE)[title]))
        assert sorted(there) == sorted(heading for heading, _ in expected(model)), title


@pytest.mark.parametrize(
    ("title", "heading", "model"),
    [
        (title, heading, model)
        for title, top in FILES.items()
        for heading, model in (("", top), *expected(top))
    ],
)
def test_each_table_has_every_key_and_says_which_are_needed(
    title: str, heading: str, model: type[Model]
) -> None:
    text = sections("##", PAGE)[title]
    found = rows(sections("###", text)[heading] if heading else text)
    assert list(found) == list(model.model_fields)
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    assert {name for name, said in found.items() if said == "needed"} == needed


@pytest.mark.parametrize(
    ("heading", "key", "said"),
    [
        ("", "port", f"{Image.model_fields['port'].default}"),
        ("`[[account]]`", "shell", f"`{Account.model_fields['shell'].default}`"),
        ("`[[account]]`", "password", f"`{Account.model_fields['password'].default}`"),
        ("`[[file]]`", "mode", f"0o{ExtraFile.model_fields['mode'].default:o}"),
        ("`[[file]]`", "uid", f"{ExtraFile.model_fields['uid'].default}"),
        ("`[[file]]`", "gid", f"{ExtraFile.model_fields['gid'].default}"),
    ],
)
def test_what_is_told_of_a_default_is_so(heading: str, key: str, said: str) -> None:
    text = sections("##", PAGE)[next(iter(FILES))]
    assert rows(sections("###", text)[heading] if heading else text)[key] == said


def test_readme_leads_to_it() -> None:
    assert "(docs/recipes.md)" in (PROJECT / "README.md").read_text("utf-8")
