"""One compilation: how a source becomes a binary, with tools on a PATH of their own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.builder.components import licences, linked, patch
from pipeline.builder.components.results import Made
from pipeline.builder.recipes import kconfig
from pipeline.builder.recipes.component import Autoconf, Component, Kbuild, Make
from pipeline.builder.sources import unpack
from pipeline.errors import NiftyError, ProblemsError
from pipeline.paths import beneath
from pipeline.run import ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipeline.builder.components.slots import Slots
    from pipeline.builder.components.toolchain import Toolchain


class CompileError(NiftyError):
    """A build that failed, or made something else than the recipe says."""


class KconfigError(ProblemsError):
    """Lines of a config fragment that the build did not take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
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
    ) -> Job:
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

    def build(self, recipe: Kbuild | Autoconf | Make) -> Made:
        """The finished binary and what is told of it. Raises CompileError, KconfigError."""
        match recipe:
            case Kbuild():
                return self.kbuild(recipe)
            case Autoconf():
                return self.autoconf(recipe)
            case Make():
                return self.make(recipe)

    def kbuild(self, recipe: Kbuild) -> Made:
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

    def autoconf(self, recipe: Autoconf) -> Made:
        """Dropbear: headers into the source folder, configure, make."""
        self._put(recipe.headers)
        words = [*_variables(recipe), *recipe.configure]
        self._run(["sh", "./configure", f"--host={self.triple}", *words])
        self._run(["make", *recipe.make], side_by_side=True)
        return self._made(recipe.binary, recipe.binary, None)

    def make(self, recipe: Make) -> Made:
        """sftp-server: files into the source folder, make with the recipe's own makefile."""
        self._put(recipe.files)
        self._run(["make", *_variables(recipe), *recipe.make], side_by_side=True)
        return self._made(recipe.binary, recipe.binary, None)

    def _put(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.copyfile(self.folder / name, self.top / name)

    def _made(self, binary: str, output: str, applets: tuple[str, ...] | None) -> Made:
        """What came out as *binary*, which the linker called *output*."""
        return Made(
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
