"""Turns a verified source into a component: one static binary and the names it answers to.

A result is kept under a digest of everything that matters, so an unchanged component is never
compiled twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.builder.components import (
    applets,
    gate,
    job,
    libc,
    licences,
    linked,
    patch,
    plain,
    results,
    toolchain,
)
from pipeline.builder.components.job import CompileError, Job
from pipeline.builder.components.results import Made
from pipeline.builder.components.slots import Slots
from pipeline.builder.recipes import kconfig
from pipeline.builder.recipes.component import Autoconf, Component, Extract, Kbuild, Make
from pipeline.builder.sources import unpack
from pipeline.files import locked
from pipeline.paths import beneath
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.builder.components.results import Built

# in the bench of a component that cannot be compiled there: where it is
_ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where compiling happens: results, scratch folders, the C library, logs."""

    root: Path
    slots: Slots | None = None  # None: as many as there are processors, for each component

    @property
    def results(self) -> Path:
        return self.root / "compiled"

    @property
    def scratch(self) -> Path:
        return self.root / "work"

    @property
    def libraries(self) -> Path:
        return self.root / "musl"

    @property
    def logs(self) -> Path:
        return self.root / "log"


def input_digest(component: Component, folder: Path, architecture: str) -> str:
    """Hex sha256 of everything that decides the result: recipe, files, tools, target, this code."""
    build = component.build
    names = [item.file for item in component.patch]
    if isinstance(build, Kbuild):
        names.append(build.fragment)
    if isinstance(build, Autoconf):
        names += build.headers
    if isinstance(build, Make):
        names += build.files
    tools = () if isinstance(build, Extract) else toolchain.versions()
    facts = {
        "source": component.source.sha256,
        "files": {name: _sha256(beneath(folder, name)) for name in names},
        "build": build.model_dump(mode="json"),
        "program": component.program.model_dump(mode="json"),
        "licences": [item.model_dump(mode="json") for item in component.licence_files],
        "epoch": component.epoch,
        "tools": tools,
        "architecture": architecture,
        "code": _CODE,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Read when the modules are: a build that runs while somebody edits them must not file what the old
# code makes under the digest of the new.
_CODE = tuple(
    _sha256(Path(file or ""))
    for file in (
        __file__,
        *(module.__file__ for module in (applets, job, kconfig, libc, licences, linked, patch)),
        *(module.__file__ for module in (plain, results, toolchain, unpack)),
    )
)


def build(
    component: Component,
    folder: Path,
    packed: Callable[[], Path],
    shop: Workshop,
    *,
    architecture: str,
) -> Built:
    """The finished component, from the cache or made anew; it has passed the gate either way.

    *packed* gives the verified source file and is asked only if it is needed. Of several processes
    that want the same component, one makes it and the others wait. Raises CompileError, PatchError,
    SourceError, ArchiveError or GateError.
    """
    digest = input_digest(component, folder, architecture)
    result = shop.results / digest
    bench = shop.scratch / component.name
    built = results.find(component, digest, result)
    if built is None or bench.exists():  # at work, or left by a build that was killed
        shop.scratch.mkdir(parents=True, exist_ok=True)
        with locked(shop.scratch / f"{component.name}.lock"):
            _clear(bench)
            built = results.find(component, digest, result)
            if built is None:
                if result.exists():
                    say(f"{result}: damaged, making {component.name} again")
                try:
                    _make(component, folder, packed(), shop, result, architecture)
                finally:
                    _clear(bench)
                built = results.find(component, digest, result)
    if built is None:
        raise CompileError(f"{result}: damaged as soon as it was written")
    gate.check(component, built, architecture)
    return built


def is_compiled_here(
    component: Component, folder: Path, shop: Workshop, *, architecture: str
) -> bool:
    """Whether `build` will start a compiler for *component*."""
    if isinstance(component.build, Extract):
        return False
    try:
        return not (shop.results / input_digest(component, folder, architecture)).is_dir()
    except toolchain.ToolchainError:  # the wheels' versions decide the digest
        return True


def _make(
    component: Component,
    folder: Path,
    packed: Path,
    shop: Workshop,
    result: Path,
    architecture: str,
) -> None:
    bench = shop.scratch / component.name
    for path in (shop.results, bench, shop.libraries, shop.logs):
        path.mkdir(parents=True, exist_ok=True)
    with _scratch(bench) as scratch:
        log = shop.logs / f"{component.name}.log"
        log.unlink(missing_ok=True)
        recipe = component.build
        if isinstance(recipe, Extract):
            made = _extract(component, recipe, packed)
        else:
            with nullcontext(shop.slots) if shop.slots else Slots() as slots:
                tools = toolchain.find(architecture)
                sysroot = partial(libc.provide, tools, cache=shop.libraries, slots=slots, log=log)
                started = Job.start(component, folder, packed, scratch, tools, sysroot, slots, log)
                made = started.build(recipe)
        results.publish(bench / "result", result, component, made)


@contextmanager
def _scratch(bench: Path) -> Iterator[Path]:
    """A folder to compile in: in *bench*, or where the path is plain, with a link to it there."""
    place = plain.place(bench)
    with tempfile.TemporaryDirectory(
        dir=place, prefix=f"nifty-{bench.name}-", ignore_cleanup_errors=True
    ) as name:
        scratch = Path(name).resolve()
        scratch.chmod(0o755)
        if place != bench.resolve():
            (bench / _ELSEWHERE).symlink_to(scratch)
        yield scratch


def _clear(bench: Path) -> None:
    """Remove what is left of compiling, also by a build that was killed; for who holds the lock."""
    link = bench / _ELSEWHERE
    # others may have made a folder of that name since
    if link.is_dir() and link.stat().st_uid == os.geteuid():
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(bench, ignore_errors=True)


def _extract(component: Component, recipe: Extract, packed: Path) -> Made:
    content = unpack.deb_member(packed, recipe.member) if recipe.member else packed.read_bytes()
    listed = component.program.applets
    if listed == "build":
        listed = applets.find(content, name=component.program.file)
    texts = licences.read(component, lambda name: unpack.deb_member(packed, name))
    return Made(content=content, applets=listed, linked=(), licences=texts)
