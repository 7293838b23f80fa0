"""Every dynamic file of this system: the closure beside what the dynamic loader itself reports."""

from __future__ import annotations

import importlib.util
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from pipeline import elf
from pipeline.libraries import Kind, Libc, closure, this_host
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.libraries import Closure

pytestmark = pytest.mark.integration

LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
MUSL = Path("/lib/ld-musl-x86_64.so.1")
# path -> why the closure may differ from what the loader says
ACCEPTED: Mapping[str, str] = {}

VERSION = re.compile(r"(\S+): version `(\S+)' not found \(required by (\S+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Paths in the order of loading, what is missing, and (library, version, asker) likewise."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    versions: tuple[tuple[str, ...], ...]


@pytest.fixture
def loader() -> Path:
    """Glibc's ld.so; a program run by it, not by the kernel, runs nothing of its own."""
    found = next((Path(name) for name in LOADERS if Path(name).exists()), None)
    if found is None:
        pytest.skip("no glibc here")
    return found


def elf_files() -> Iterator[Path]:
    for root in (Path("/usr/bin"), Path("/usr/sbin"), *sorted(Path("/usr").glob("lib*"))):
        for folder, _, names in os.walk(root):
            for path in (Path(folder) / name for name in sorted(names)):
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                with path.open("rb") as stream:
                    if stream.read(4) == b"\x7fELF":
                        yield path


def is_for(path: Path, loader: elf.ElfFacts) -> bool:
    """Whether the file is dynamic, for the loader's machine."""
    try:
        facts = elf.read(path)
    except elf.ElfError:
        return False
    is_dynamic = facts.linkage in (elf.Linkage.DYNAMIC, elf.Linkage.SHARED)
    same = (facts.machine, facts.bits) == (loader.machine, loader.bits)
    return is_dynamic and same and bool(facts.interpreter or facts.needed)


def loader_told(loader: Path, path: Path) -> Told:
    done = run([loader, path], env={"LD_TRACE_LOADED_OBJECTS": "1"}, check=False)
    lines = [line.strip() for line in done.stdout.splitlines()]
    missing = [m[1] for m in (re.fullmatch(r"(\S+) => not found", line) for line in lines) if m]
    paths = [m[1] for m in (re.search(r"(/\S+) \(0x[0-9a-f]+\)$", line) for line in lines) if m]
    other = [line for line in lines if "=>" not in line and "(0x" not in line]
    versions = [m.groups() for m in VERSION.finditer(done.stdout + done.stderr)]
    is_static = other == ["statically linked"]
    assert is_static or other == [] or versions, f"{path}: {done.stdout}{done.stderr}"
    assert lines or versions, f"{path}: {done.stderr}"
    return Told(
        loaded=tuple(paths), missing=tuple(sorted(missing)), versions=tuple(sorted(versions))
    )


def closure_told(found: Closure) -> Told:
    wrong = {Kind.MISSING: "", Kind.MACHINE: "", Kind.VERSION: ""}
    assert all(problem.kind in wrong for problem in found.problems), found.problems
    versions = [
        (str(problem.found), str(problem.version), problem.needed_by)
        for problem in found.problems
        if problem.kind is Kind.VERSION
    ]
    lacking = [problem.library for problem in found.problems if problem.kind is not Kind.VERSION]
    return Told(
        loaded=tuple(each.path for each in found.libraries),
        missing=tuple(sorted(lacking)),
        versions=tuple(sorted(versions)),
    )


def test_closures_equal_what_the_loader_reports(
    loader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine, root = elf.read(loader), this_host()
    paths = [path for path in elf_files() if is_for(path, machine)]

    def trace(path: Path) -> Told:
        return loader_told(loader, path)

    with ThreadPoolExecutor(2) as pool:
        expected = dict(zip(paths, pool.map(trace, paths), strict=True))
    actual = {path: closure_told(closure(PurePosixPath(path), root)) for path in paths}
    loaded = sum(len(told.loaded) for told in actual.values())
    with capsys.disabled():
        say(f"\n{len(paths)} closures of {loaded} libraries compared with {loader}")
    differing = [path for path in paths if actual[path] != expected[path]]
    assert [
        f"{path}: {actual[path]}, expected {expected[path]}"
        for path in differing
        if str(path) not in ACCEPTED
    ] == []
    assert len(paths) > 100  # the smallest container has some hundred


def compiled(folder: Path, name: str, source: str, *options: str | Path) -> Path:
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    code, made = folder / f"{name}.c", folder / name
    code.write_text(source)
    caches = {
        "ZIG_GLOBAL_CACHE_DIR": str(PROJECT / "artifacts/cache/zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "cache"),
    }
    words = [Path(spec.origin).parent / "zig", "cc", "-target", TARGET, "-Oz", *options]
    run([*words, code, "-o", made], env={**CLEAN_ENVIRONMENT, **caches}, cwd=folder)
    return made


TARGET = f"{os.uname().machine}-linux-gnu"
LIBRARY = ("-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libtiny.so")


def with_version(folder: Path, version: str) -> Path:
    script = folder / f"{version}.map"
    script.write_text(f"{version} {{ global: tiny; }};\n")
    option = f"-Wl,--version-script={script}"
    return compiled(folder, "libtiny.so", "void tiny(void) {}", *LIBRARY, option)


def test_missing_versions_equal_what_the_loader_reports(loader: Path, tmp_path: Path) -> None:
    library = with_version(tmp_path, "TINY_2")
    source = "void tiny(void); int main(void) { tiny(); return 0; }"
    program = compiled(tmp_path, "p", source, library, f"-Wl,-rpath,{tmp_path}")
    with_version(tmp_path, "TINY_1")
    expected = loader_told(loader, program)
    assert expected.versions == ((str(library), "TINY_2", str(program)),)
    assert closure_told(closure(PurePosixPath(program), this_host())).versions == expected.versions


@pytest.mark.skipif(not MUSL.exists(), reason="no musl here: apt-get install musl")
def test_a_musl_program_equals_what_its_loader_reports(tmp_path: Path) -> None:
    library = with_version(tmp_path, "TINY_1")
    interpreter = f"-Wl,-dynamic-linker,{MUSL}"
    source = "void tiny(void); void _start(void) { tiny(); for (;;); }"
    path = f"-Wl,-rpath,$ORIGIN/none:{tmp_path}"
    options = ("-nostdlib", "-fPIE", "-pie", interpreter, library, path)
    program = compiled(tmp_path, "p", source, *options)
    found = closure(PurePosixPath(program), this_host())
    printed = run([MUSL, "--list", program]).stdout
    assert found.libc is Libc.MUSL
    assert [each.path for each in found.libraries] == re.findall(r" => (\S+) \(0x", printed)
