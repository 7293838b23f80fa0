"""Reads a folder of recipes: every problem of every file at once, one line each."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import ValidationError

from pipeline.builder.recipes.component import Autoconf, Component, Kbuild, Make
from pipeline.builder.recipes.fields import SHA256, Model
from pipeline.builder.recipes.image import Image
from pipeline.errors import ProblemsError
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# the key by which a table says what it is, and what it may say there
_TAGS = {
    "location": ("kind", ("https", "debian-source", "debian-binary")),
    "build": ("system", ("kbuild", "autoconf", "make", "prebuilt")),
}

_M = TypeVar("_M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """The recipes of the folder *root* that are valid, by name, and a line for each *problem*.

    A component's name is that of its folder, an image's that of its file.
    """

    root: Path
    components: Mapping[str, Component]
    images: Mapping[str, Image]
    problems: tuple[str, ...] = ()

    def folder(self, component: Component) -> Path:
        """The folder of *component*'s recipe, where its patches, configs and keys lie."""
        return self.root / "components" / component.name

    def is_whole(self, name: str) -> bool:
        """Whether the image *name* and all of its components have valid recipes."""
        image = self.images.get(name)
        return image is not None and set(image.components) <= set(self.components)

    def check(self, folder: str = "") -> None:
        """Raise RecipeError with all problems of all files in *folder*, if there are any."""
        found = [line for line in self.problems if line.startswith(f"{self.root.name}/{folder}")]
        if found:
            many = "s" * (len(found) > 1)
            raise RecipeError(f"{len(found)} problem{many} in the recipes:", found)


class RecipeError(ProblemsError):
    """Problems in recipes, one line each."""


def load(root: Path) -> Recipes:
    """Every recipe below *root*: those that are valid, and the problems of all others."""
    problems: list[str] = []
    components: dict[str, Component] = {}
    images: dict[str, Image] = {}
    # by folder, so that an image is not blamed for a component whose recipe is broken
    folders = {path.parent.name for path in root.glob("components/*/recipe.toml")}
    for path in sorted(root.glob("components/*/recipe.toml")):
        component = _parse(path, root, Component, problems)
        if component is not None:
            found = tuple(_component_problems(path, root, component))
            problems += found
            if not found:
                components[component.name] = component
    for path in sorted(root.glob("images/*.toml")):
        image = _parse(path, root, Image, problems)
        if image is not None:
            found = tuple(_image_problems(path, root, image, folders))
            problems += found
            if not found:
                images[image.name] = image
    if not components and not problems:
        problems.append(f"{root.name}/components: no recipe.toml in any folder")
    return Recipes(root=root, components=components, images=images, problems=tuple(problems))


def _parse(path: Path, root: Path, model: type[_M], problems: list[str]) -> _M | None:
    where = f"{root.name}/{path.relative_to(root)}"
    if path.is_fifo():  # reading it would not end
        problems.append(f"{where}: not a regular file")
        return None
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{where}: not TOML: {error}")
        return None
    except UnicodeDecodeError as error:
        problems.append(f"{where}: not UTF-8: byte {error.start}")
        return None
    except (ValueError, RecursionError) as error:  # tomllib's on endless numbers, deep nesting
        problems.append(f"{where}: not TOML: {error}")
        return None
    except OSError as error:
        problems.append(f"{where}: cannot be read: {error.strerror}")
        return None
    try:
        # by way of JSON: strict about types, yet arrays become tuples and dates stay dates
        return model.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        problems += (f"{where}: {line}" for line in _explain(error, model))
        return None


def _explain(error: ValidationError, model: type[Model]) -> Iterator[str]:
    for item in error.errors(include_url=False, include_context=True):
        parts = _parts(item["loc"])
        path = ".".join(parts) or "(whole file)"
        found = repr(item["input"])
        found = found if len(found) <= 60 else found[:57] + "..."
        if parts[-1:] == ["password"]:
            found = "a value that is not shown"
        match item["type"]:
            case "extra_forbidden":
                yield f"{path}: unknown key; {_tip(parts[-1], _keys_at(model, item['loc'][:-1]))}"
            case "missing":
                yield f"{path}: missing"
            case "union_tag_not_found" if tagged := _tagged(item["loc"]):
                key, tags = _TAGS[tagged]
                yield f"{path}.{key}: missing, expected one of {', '.join(tags)}"
            case "union_tag_invalid" if tagged := _tagged(item["loc"]):
                key, tags = _TAGS[tagged]
                said = item["ctx"]["tag"]
                close = difflib.get_close_matches(said, tags, n=1)
                tip = f"; did you mean {close[0]!r}?" if close else ""
                yield f"{path}.{key}: found {said!r}, expected one of {', '.join(tags)}{tip}"
            case "string_pattern_mismatch" if item["ctx"]["pattern"] == SHA256:
                size = len(item["input"])
                yield f"{path}: found {found} ({size} characters), expected 64 hex digits"
            case "string_pattern_mismatch":
                yield f"{path}: found {found}, expected the form {item['ctx']['pattern']}"
            case "value_error":
                yield f"{path}: found {found}: {item['ctx']['error']}"
            case _:
                message = item["msg"].removeprefix("Input should be ")
                yield f"{path}: found {found}, expected {message}"


def _parts(loc: tuple[int | str, ...]) -> list[str]:
    """The path in the user's file: pydantic's has a level more where a table says what it is."""
    at = {"location": 2, "build": 1}.get(str(loc[0]), 0) if loc else 0
    at = 2 if loc[:2] == ("program", "applets") else at
    at = 4 if _tagged(loc) == "location" and loc[0] == "package" else at
    return [str(part) for index, part in enumerate(loc) if not 0 < index == at]


def _tagged(loc: tuple[int | str, ...]) -> str | None:
    """The table at *loc* that says by a key what it is, if there is one."""
    here = loc[2:] if loc[:1] == ("package",) else loc
    name = str(here[0]) if here else ""
    return name if name in _TAGS else None


def _tip(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _keys_at(model: type[Model], loc: tuple[int | str, ...]) -> list[str]:
    """The keys a table at *loc* below *model* may have."""
    models = [model]
    for part in loc:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:
            models = [found for field in fields for found in _models_in(field.annotation)]
        elif isinstance(part, str):  # what the table says it is; an index names no field
            models = [found for found in models if part in _said(found)] or models
    return sorted({name for found in models for name in found.model_fields})


def _said(model: type[Model]) -> tuple[object, ...]:
    fields = (model.model_fields.get(key) for key, _tags in _TAGS.values())
    return tuple(value for field in fields if field for value in get_args(field.annotation))


def _models_in(annotation: object) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _component_problems(path: Path, root: Path, component: Component) -> Iterator[str]:
    where = f"{root.name}/{path.relative_to(root)}"
    folder = path.parent
    if folder.name != component.name:
        yield f"{where}: name: found {component.name!r}, expected the folder's name {folder.name!r}"
    if component.source.signature:
        signature = component.source.signature
        yield from _pinned(where, "source.signature", folder, signature.file, signature.sha256)
        yield from _present(where, "source.signature.key", folder, signature.key)
    for index, patch in enumerate(component.patch):
        yield from _pinned(where, f"patch.{index}", folder, patch.file, patch.sha256)
    build = component.build
    if isinstance(build, Kbuild):
        yield from _present(where, "build.fragment", folder, build.fragment)
    if isinstance(build, Autoconf):
        for index, header in enumerate(build.headers):
            yield from _present(where, f"build.headers.{index}", folder, header)
    if isinstance(build, Make):
        for index, name in enumerate(build.files):
            yield from _present(where, f"build.files.{index}", folder, name)


def _present(where: str, key: str, folder: Path, name: str) -> Iterator[str]:
    if not beneath(folder, name).is_file():
        yield f"{where}: {key}: no file {name!r} in the recipe's folder"


def _pinned(where: str, key: str, folder: Path, name: str, sha256: str) -> Iterator[str]:
    try:
        found = hashlib.sha256(beneath(folder, name).read_bytes()).hexdigest()
    except OSError as error:
        yield f"{where}: {key}.file: {name!r} in the recipe's folder: {error.strerror}"
        return
    if found != sha256:
        yield f"{where}: {key}.sha256: found {found} in {name}, expected {sha256}"


def _image_problems(path: Path, root: Path, image: Image, known: set[str]) -> Iterator[str]:
    where = f"{root.name}/{path.relative_to(root)}"
    if path.stem != image.name:
        yield f"{where}: name: found {image.name!r}, expected the file's name {path.stem!r}"
    for index, name in enumerate(image.components):
        if name not in known:
            tip = _tip(name, sorted(known))
            yield f"{where}: components.{index}: no component {name!r}; {tip}"
    for key, values in (
        ("components", image.components),
        ("account", tuple(account.name for account in image.account)),
        ("account uid", tuple(str(account.uid) for account in image.account)),
        ("group", tuple(group.name for group in image.group)),
        ("group gid", tuple(str(group.gid) for group in image.group)),
        ("file", tuple(extra.path for extra in image.file)),
        ("package", tuple(package.name for package in image.package)),
        ("dropin target", tuple(dropin.target for dropin in image.dropin)),
    ):
        for twice in sorted({value for value in values if values.count(value) > 1}):
            yield f"{where}: {key}: {twice!r} stands there twice"
    yield from _account_problems(where, image)
    yield from _dropin_problems(where, image)
    for index, extra in enumerate(image.file):
        if extra.file is not None:
            yield from _present(where, f"file.{index}.file", path.parent, extra.file)
    if [word for word in image.ssh if "{port}" in word] != ["{port}"] or image.ssh[0] == "{port}":
        yield (
            f"{where}: ssh: found {list(image.ssh)}, expected a program and once the word "
            f"'{{port}}': the port must be a word of its own"
        )


def _dropin_problems(where: str, image: Image) -> Iterator[str]:
    packages = {package.name for package in image.package}
    for index, dropin in enumerate(image.dropin):
        for name in dropin.packages:
            if name not in packages:
                there = ", ".join(sorted(packages)) or "none"
                yield (
                    f"{where}: dropin.{index}.packages: no [[package]] {name!r}; there are: {there}"
                )
    if len({dropin.libraries for dropin in image.dropin}) > 1:
        yield (
            f"{where}: dropin: 'bind' beside 'copy': the host's libraries would lie over the"
            " image's; make two images, or use one of them for all"
        )


def _account_problems(where: str, image: Image) -> Iterator[str]:
    gids = {group.gid for group in image.group}
    names = {account.name for account in image.account}
    for index, account in enumerate(image.account):
        if account.gid not in gids:
            yield f"{where}: account.{index}.gid: no group has {account.gid}"
    for index, group in enumerate(image.group):
        for member in group.members:
            if member not in names:
                yield f"{where}: group.{index}.members: no account {member!r}"
    if not any(account.uid == 0 and account.name == "root" for account in image.account):
        yield f"{where}: account: no root with uid 0, which init needs"
