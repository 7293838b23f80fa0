"""Programs and libraries of some hundred bytes, made by the wheel's compiler, and their trees."""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline.libraries import LibraryRoot, closure
from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.libraries import Closure

GLIBC, MUSL = "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"
PT_DYNAMIC, DT_RPATH, DT_RUNPATH, DT_FLAGS_1 = 2, 15, 29, 0x6FFFFFFB
DF_1_NODEFLIB = 0x800


def _entry(content: bytes, tag: int) -> int:
    """Where the dynamic entry *tag* begins."""
    (count,) = struct.unpack_from("<H", content, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", content, 64 + 56 * i) for i in range(count)]
    start, size = next((h[2], h[5]) for h in headers if h[0] == PT_DYNAMIC)
    return next(
        at
        for at in range(start, start + size, 16)
        if struct.unpack_from("<Q", content, at)[0] == tag
    )


def with_rpath(content: bytes) -> bytes:
    """The same file with DT_RPATH where it has DT_RUNPATH."""
    copy = bytearray(content)
    struct.pack_into("<Q", copy, _entry(content, DT_RUNPATH), DT_RPATH)
    return bytes(copy)


def without_default_directories(content: bytes) -> bytes:
    """The same file with DF_1_NODEFLIB."""
    copy, at = bytearray(content), _entry(content, DT_FLAGS_1) + 8
    struct.pack_into("<Q", copy, at, struct.unpack_from("<Q", content, at)[0] | DF_1_NODEFLIB)
    return bytes(copy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What to link."""

    source: str
    needs: tuple[str, ...] = ()
    runpath: str = ""
    target: str
    options: tuple[str, ...]
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Compiles; what has been made once is not made again.

    In what a file needs, `name@VERSION` is a symbol version of the library called so.
    """

    folder: Path
    zig: Path
    made: dict[_Order, Path] = field(default_factory=dict)

    @classmethod
    def below(cls, folder: Path) -> Maker:
        spec = importlib.util.find_spec("ziglang")
        assert spec is not None
        assert spec.origin is not None
        return cls(folder=folder, zig=Path(spec.origin).parent / "zig")

    def library(
        self,
        soname: str | None,
        *needs: str,
        runpath: str = "",
        versions: Sequence[str] = (),
        target: str = "x86_64-linux-gnu",
        text: str = "",
    ) -> bytes:
        """A library that defines *versions*, and holds *text*, with NUL for each `|`."""
        order = self._library(soname, needs, versions, target, text)
        return self._link(replace(order, runpath=runpath)).read_bytes()

    def program(
        self, *needs: str, runpath: str = "", interpreter: str = GLIBC, target: str = "x86_64"
    ) -> bytes:
        """A program that asks for *interpreter*."""
        order = _Order(
            source=f"{_declared(needs)}void _start(void) {{ {_called(needs)} for (;;); }}",
            needs=needs,
            runpath=runpath,
            target=f"{target}-linux-{'musl' if interpreter == MUSL else 'gnu'}",
            options=("-fPIE", "-pie", f"-Wl,-dynamic-linker,{interpreter}"),
        )
        return self._link(order).read_bytes()

    def _library(
        self,
        soname: str | None,
        needs: Sequence[str],
        versions: Sequence[str],
        target: str,
        text: str,
    ) -> _Order:
        source = [_declared(needs), f"void calls(void) {{ {_called(needs)} }}"]
        source += [f"void {_symbol(version)}(void) {{}}" for version in versions]
        if text:
            source.append('const char text[] = "' + text.replace("|", "\\000") + '";')
        named = () if soname is None else (f"-Wl,-soname,{soname}",)
        return _Order(
            source="\n".join(source),
            needs=tuple(needs),
            target=target,
            options=("-shared", "-fPIC", *named),
            versions=tuple(versions),
        )

    def _link(self, order: _Order) -> Path:
        if order in self.made:
            return self.made[order]
        inputs: list[str | Path] = []
        for name in dict.fromkeys(need.partition("@")[0] for need in order.needs):
            versions = [need.partition("@")[2] for need in order.needs if f"{name}@" in need]
            inputs.append(self._link(self._library(name, (), versions, order.target, "")))
        place = self.folder / f"{len(self.made)}.so"
        place.with_suffix(".c").write_text(order.source)
        if order.versions:
            lines = [f"{each} {{ global: {_symbol(each)}; }};" for each in order.versions]
            place.with_suffix(".map").write_text("\n".join(lines))
            inputs.append(f"-Wl,--version-script={place.with_suffix('.map')}")
        if order.runpath:
            inputs.append(f"-Wl,-rpath,{order.runpath}")
        words: list[str | Path] = [
            *(self.zig, "cc", "-target", order.target, "-Oz", "-nostdlib", "-Wl,-z,now"),
            *(*order.options, place.with_suffix(".c"), "-Wl,--no-as-needed", *inputs),
            *("-o", place),
        ]
        caches = {
            "ZIG_GLOBAL_CACHE_DIR": str(PROJECT / "artifacts/cache/zig"),
            "ZIG_LOCAL_CACHE_DIR": str(self.folder / "cache"),
        }
        run(words, env={**CLEAN_ENVIRONMENT, **caches}, cwd=self.folder)
        self.made[order] = place
        return place

    def loader(self, *directories: str) -> bytes:
        """A stand-in for glibc's ld.so with these directories compiled in."""
        text = "".join(f"{directory}/|" for directory in directories)
        return self.library("ld-linux-x86-64.so.2", text=f"x|{text}|")


def _symbol(version: str) -> str:
    return f"at_{version.replace('.', '_')}"


def _versions(needs: Sequence[str]) -> list[str]:
    return [need.partition("@")[2] for need in needs if "@" in need]


def _declared(needs: Sequence[str]) -> str:
    return "".join(f"void {_symbol(version)}(void);" for version in _versions(needs))


def _called(needs: Sequence[str]) -> str:
    return "".join(f"{_symbol(version)}();" for version in _versions(needs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A directory tree that is somebody's `/`."""

    path: Path

    @classmethod
    def rpm_style(cls, path: Path, maker: Maker) -> Tree:
        """/usr/lib64 with a stand-in for ld.so, and /lib64 a link to it."""
        made = cls(path=path)
        made.put("/usr/lib64/ld-linux-x86-64.so.2", maker.loader("/lib64", "/usr/lib64"))
        made.link("/lib64", "usr/lib64")
        return made

    def put(self, name: str, content: bytes | str = b"") -> None:
        place = self.path / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, name: str, target: str) -> None:
        place = self.path / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def root(self, *hwcaps: str) -> LibraryRoot:
        return LibraryRoot(path=self.path, hwcaps=hwcaps)

    def closure(self, binary: str, *hwcaps: str) -> Closure:
        return closure(PurePosixPath(binary), self.root(*hwcaps))

    def paths(self, binary: str, *hwcaps: str) -> list[str]:
        """What is loaded for *binary*, as ld.so names it; nothing may be wrong."""
        found = self.closure(binary, *hwcaps)
        assert [str(problem) for problem in found.problems] == []
        return [each.path for each in found.libraries]

    def problems(self, binary: str) -> list[str]:
        return [str(problem) for problem in self.closure(binary).problems]

    def problem(self, binary: str) -> str:
        """The only thing that is wrong."""
        (problem,) = self.problems(binary)
        return problem
