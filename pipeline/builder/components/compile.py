"""Turns a verified source into a component: one static binary and the names it answers to.

Results are cached under a digest of everything that matters, so an unchanged component is never
compiled twice; a cache folder appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import elf
from pipeline.builder.components import (
    applets,
    gate,
    libc,
    licences,
    linked,
    patch,
    plain,
    toolchain,
)
from pipeline.builder.components.slots import Slots
from pipeline.builder.recipes import kconfig
from pipeline.builder.recipes.recipe import Autoconf, Component, Extract, Kbuild, Make
from pipeline.builder.sources import unpack
from pipeline.errors import NiftyError, ProblemsError
from pipeline.files import locked, put_cached
from pipeline.paths import beneath
from pipeline.progress import say
from pipeline.run import ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pipeline.builder.components.toolchain import Toolchain

# beside a finished binary: its sha256, the names it answers to, and a sha256 of these
RECORD = "component.json"
# in the bench of a component that cannot be compiled there: where it is
_ELSEWHERE = "elsewhere"


class CompileError(NiftyError):
    """A build that failed, or made something else than the recipe says."""


class KconfigError(ProblemsError):
    """Lines of a config fragment that the build did not take."""


class GateError(ProblemsError):
    """A binary that must not go into an image; each problem names the number and the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A component ready for an image: *folder* holds its binary and a list of its applets.

    *linked* are the libraries that the linker took (none is told of a prebuilt one), *licences* the
    texts of the recipe's licence files by their paths.
    """

    name: str
    digest: str
    folder: Path
    program: str
    applets: tuple[str, ...]
    linked: tuple[str, ...] = ()
    licences: Mapping[str, str] = field(default_factory=dict)

    @property
    def binary(self) -> Path:
        """The multi-call binary."""
        return self.folder / self.program


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
        *(
            module.__file__
            for module in (
                applets,
                kconfig,
                libc,
                licences,
                linked,
                patch,
                plain,
                unpack,
                toolchain,
            )
        ),
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
    built = _cached(component, digest, result)
    if built is None or bench.exists():  # at work, or left by a build that was killed
        shop.scratch.mkdir(parents=True, exist_ok=True)
        with locked(shop.scratch / f"{component.name}.lock"):
            _clear(bench)
            built = _cached(component, digest, result)
            if built is None:
                if result.exists():
                    say(f"{result}: damaged, making {component.name} again")
                try:
                    _make(component, folder, packed(), shop, result, architecture)
                finally:
                    _clear(bench)
                built = _cached(component, digest, result)
    if built is None:
        raise CompileError(f"{result}: damaged as soon as it was written")
    check(component, built, architecture)
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


def _cached(component: Component, digest: str, result: Path) -> Built | None:
    """The finished result, or None if there is none or it was damaged since."""
    try:
        table = json.loads((result / RECORD).read_text("utf-8"))
        if table.pop("record") != _seal(table):
            return None
        built = Built(
            name=component.name,
            digest=digest,
            folder=result,
            program=component.program.file,
            applets=tuple(table["applets"]),
            linked=tuple(table["linked"]),
            licences=dict(table["licences"]),
        )
        return built if _sha256(built.binary) == table["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _seal(table: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def install(built: Built, folder: Path) -> None:
    """Copy *built* to *folder*, where people and doit look for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mode in ((built.program, 0o755), (RECORD, 0o644)):
        put_cached(folder / name, (built.folder / name).read_bytes(), mode=mode)


def check(component: Component, built: Built, architecture: str) -> None:
    """The gate: for this machine, static, self-sufficient, no executable stack, within budget.

    What was linked in is what the recipe says.
    """
    if not isinstance(component.build, Extract):
        linked.check(component, built.linked)
    content = built.binary.read_bytes()
    facts = elf.parse(content, built.binary.name)
    limits = gate.Budget(max_file=component.budget.file, max_text=component.budget.text)
    found = gate.problems(
        facts, content, name=component.name, limits=limits, accept_nss=bool(component.accept_nss)
    )
    if facts.machine != architecture:
        found = (f"{component.name}: is for {facts.machine}, the image for {architecture}", *found)
    if found:
        raise GateError(
            f"{component.name} {component.version} must not go into an image:",
            found,
            hint=f"see [budget] in recipes/components/{component.name}/recipe.toml",
        )


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
                job = _Job.start(component, folder, packed, scratch, tools, sysroot, slots, log)
                made = job.build(recipe)
        _publish(bench / "result", result, component, made)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """As `Built`, before it lies in its folder."""

    content: bytes
    applets: tuple[str, ...]
    linked: tuple[str, ...]
    licences: Mapping[str, str]


def _publish(staged: Path, result: Path, component: Component, made: _Made) -> None:
    staged.mkdir()
    put_cached(staged / component.program.file, made.content, mode=0o755)
    record = {
        "applets": made.applets,
        "linked": made.linked,
        "licences": made.licences,
        "sha256": hashlib.sha256(made.content).hexdigest(),
        "version": component.version,
    }
    record["record"] = _seal(record)
    put_cached(staged / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    shutil.rmtree(result, ignore_errors=True)  # whatever was damaged
    staged.rename(result)


def _extract(component: Component, recipe: Extract, packed: Path) -> _Made:
    content = unpack.deb_member(packed, recipe.member) if recipe.member else packed.read_bytes()
    listed = component.program.applets
    if listed == "build":
        listed = applets.find(content, name=component.program.file)
    texts = licences.read(component, lambda name: unpack.deb_member(packed, name))
    return _Made(content=content, applets=listed, linked=(), licences=texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One compilation: a source folder, the tools on PATH, an environment made from nothing."""

    component: Component
    folder: Path
    top: Path
    environment: Mapping[str, str]
    slots: Slots
    log: Path
    triple: str
    linked_of: Callable[[str], Path]
    licences: Mapping[str, str]

    @classmethod
    def start(
        cls,
        component: Component,
        folder: Path,
        packed: Path,
        scratch: Path,
        tools: Toolchain,
        sysroot_of: Callable[[str], Path],
        slots: Slots,
        log: Path,
    ) -> _Job:
        unpacked = scratch / "source"
        unpacked.mkdir()
        top = unpack.unpack(packed, unpacked, epoch=component.epoch)
        tools.install(scratch / "tools", top, sysroot_of)
        texts = licences.read(component, lambda name: beneath(top, name).read_bytes())
        for item in component.patch:
            text = beneath(folder, item.file).read_bytes().decode("utf-8", "surrogateescape")
            patch.apply(text, top, name=f"{component.name}/{item.file}")
        return cls(
            component=component,
            folder=folder,
            top=top,
            environment=tools.environment(scratch / "tools", epoch=component.epoch),
            slots=slots,
            log=log,
            triple=tools.target,
            linked_of=partial(tools.linked, scratch / "tools"),
            licences=texts,
        )

    def build(self, recipe: Kbuild | Autoconf | Make) -> _Made:
        """The finished binary and what is told of it. Raises CompileError, KconfigError."""
        match recipe:
            case Kbuild():
                return self.kbuild(recipe)
            case Autoconf():
                return self.autoconf(recipe)
            case Make():
                return self.make(recipe)

    def kbuild(self, recipe: Kbuild) -> _Made:
        """BusyBox: configure, lay the fragment over it, compile, list the applets."""
        # BusyBox's own strip step would need binutils: the linker strips instead
        flags = {
            "CONFIG_EXTRA_CFLAGS": " ".join(recipe.cflags),
            "CONFIG_EXTRA_LDFLAGS": " ".join((*recipe.ldflags, "-s")),
        }
        fragment = (self.folder / recipe.fragment).read_text("utf-8")
        wanted = [*fragment.splitlines(), *(f'{key}="{value}"' for key, value in flags.items())]
        settings = [line for line in wanted if kconfig.key(line)]
        tools = ["CC=cc", "HOSTCC=hostcc", "AR=ar", "STRIP=strip", "SKIP_STRIP=y", "V=1"]
        self._run(["make", *tools, recipe.base])
        config = self.top / ".config"
        config.write_text(kconfig.overlay(config.read_text("utf-8"), settings), "utf-8")
        self._run(["make", *tools, "oldconfig"], stdin=b"\n" * 4096)
        # kconfig drops what it does not know, or what contradicts itself, without a word
        if unmet := kconfig.unmet(config.read_text("utf-8"), settings):
            raise KconfigError(f"{self.component.name}/{recipe.fragment}: not taken:", unmet)
        self._run(["make", *tools, recipe.binary], side_by_side=True)
        self._run(["make", *tools, recipe.links])
        links = beneath(self.top, recipe.links).read_text("utf-8").split()
        names = tuple(sorted({Path(link).name for link in links}))
        return self._made(recipe.binary, f"{recipe.binary}_unstripped", names)

    def autoconf(self, recipe: Autoconf) -> _Made:
        """Dropbear: headers into the source folder, configure, make."""
        self._put(recipe.headers)
        words = [*_variables(recipe), *recipe.configure]
        self._run(["sh", "./configure", f"--host={self.triple}", *words])
        self._run(["make", *recipe.make], side_by_side=True)
        return self._made(recipe.binary, recipe.binary, None)

    def make(self, recipe: Make) -> _Made:
        """sftp-server: files into the source folder, make with the recipe's own makefile."""
        self._put(recipe.files)
        self._run(["make", *_variables(recipe), *recipe.make], side_by_side=True)
        return self._made(recipe.binary, recipe.binary, None)

    def _put(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.copyfile(self.folder / name, self.top / name)

    def _made(self, binary: str, output: str, applets: tuple[str, ...] | None) -> _Made:
        """What came out as *binary*, which the linker called *output*."""
        return _Made(
            content=self._binary(binary),
            applets=self._applets(applets),
            linked=linked.libraries(self.linked_of(Path(output).name)),
            licences=self.licences,
        )

    def _applets(self, found: tuple[str, ...] | None) -> tuple[str, ...]:
        listed = self.component.program.applets
        if listed != "build":
            return listed
        if not found:
            raise CompileError(f"{self.component.name}: its build lists no applets")
        return found

    def _binary(self, name: str) -> bytes:
        try:
            return beneath(self.top, name).read_bytes()
        except OSError as error:
            raise CompileError(f"{self.component.name}: the build made no {name}") from error

    def _run(self, argv: list[str], stdin: bytes = b"", *, side_by_side: bool = False) -> None:
        # a make with jobs gives its standard input to one of them only
        env = {**self.environment, **(self.slots.make_flags() if side_by_side else {})}
        tool = self.environment["PATH"].split(":")[0]
        words = [f"{tool}/{argv[0]}" if argv[0] == "make" else argv[0], *argv[1:]]
        try:
            self.slots.run(words, env=env, cwd=self.top, stdin=stdin, log=self.log, timeout=3600)
        except ProgramError as error:
            raise CompileError(
                f"{self.component.name} {self.component.version} does not compile: {error.message}"
            ) from error


def _variables(recipe: Autoconf | Make) -> tuple[str, ...]:
    """The tools, by their names on the PATH of the job, and the flags."""
    return (
        "CC=cc",
        "AR=ar",
        "RANLIB=ranlib",
        "STRIP=strip",
        f"CFLAGS={' '.join(recipe.cflags)}",
        f"LDFLAGS={' '.join(recipe.ldflags)}",
    )
