"""Every ELF file of this system, and kinds it may not have, against binutils' `size`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import elf
from pipeline.builder.components import applets, gate
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.run import CLEAN_ENVIRONMENT, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

pytestmark = pytest.mark.integration

# path -> why its sizes may differ
ACCEPTED: Mapping[str, str] = {}
BATCH = 200

SOURCE = """
int zero[64];
volatile int one = 1;
void _start(void) { for (;;) zero[one] += one; }
"""
ET_CORE = 4


@pytest.fixture(autouse=True)
def _binutils() -> None:
    if shutil.which("size", path=CLEAN_ENVIRONMENT["PATH"]) is None:
        if os.environ.get("CI"):
            pytest.fail("binutils is missing: apt-get install binutils")
        pytest.skip("binutils is missing")


def elf_files() -> Iterator[Path]:
    """The ELF files below /usr/bin, /usr/sbin and /usr/lib* that this user may read."""
    for root in (Path("/usr/bin"), Path("/usr/sbin"), *sorted(Path("/usr").glob("lib*"))):
        for folder, _, names in os.walk(root):
            for path in (Path(folder) / name for name in sorted(names)):
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                with path.open("rb") as stream:
                    if stream.read(4) == b"\x7fELF":
                        yield path


def binutils_sizes(paths: Sequence[Path]) -> dict[Path, elf.Sizes]:
    """What `size` prints, without the files that it cannot read."""
    sizes: dict[Path, elf.Sizes] = {}
    for start in range(0, len(paths), BATCH):
        printed = run(["size", *paths[start : start + BATCH]], timeout=300, check=False).stdout
        for line in printed.splitlines()[1:]:
            if line:
                text, data, bss, _, _, name = line.split("\t")
                path = Path(name.split(" (core file")[0])
                sizes[path] = elf.Sizes(text=int(text), data=int(data), bss=int(bss))
    return sizes


def difference(path: Path, expected: elf.Sizes) -> str | None:
    try:
        actual = elf.read(path).sizes
    except elf.ElfError as error:
        return error.message
    return None if actual == expected else f"{path}: {actual}, expected {expected}"


def test_sizes_of_every_elf_file_equal_binutils(capsys: pytest.CaptureFixture[str]) -> None:
    paths = list(elf_files())
    sizes = binutils_sizes(paths)
    with capsys.disabled():
        say(f"\n{len(sizes)} of {len(paths)} ELF files compared with binutils' size")
    told = (difference(path, sizes[path]) for path in sizes if str(path) not in ACCEPTED)
    assert [line for line in told if line is not None] == []
    assert len(sizes) > 50  # the smallest container has some hundred


def compiled(folder: Path, target: str, *options: str) -> Path:
    """A program without libc, which the wheel's compiler makes for any target at once."""
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    source, program = folder / "bare.c", folder / f"bare-{target}{''.join(options)}"
    source.write_text(SOURCE)
    caches = {
        "ZIG_GLOBAL_CACHE_DIR": str(PROJECT / "artifacts/cache/zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "cache"),
    }
    zig = Path(spec.origin).parent / "zig"
    mode = ["-target", f"{target}-linux-musl", "-Oz", "-g", "-nostdlib", *options]
    run([zig, "cc", *mode, source, "-o", program], env={**CLEAN_ENVIRONMENT, **caches}, cwd=folder)
    return program


def patched(path: Path, suffix: str, *changes: tuple[str, int, int]) -> Path:
    content = bytearray(path.read_bytes())
    for layout, offset, value in changes:
        struct.pack_into(layout, content, offset, value)
    changed = path.with_name(path.name + suffix)
    changed.write_bytes(content)
    return changed


def binutils_size(path: Path) -> elf.Sizes:
    return binutils_sizes([path])[path]


@pytest.mark.parametrize(
    "target",
    ["x86", "aarch64", "arm", "powerpc", "powerpc64le", "riscv64", "s390x", "mips", "loongarch64"],
)
def test_sizes_of_another_machine(tmp_path: Path, target: str) -> None:
    program = compiled(tmp_path, target, "-static")
    assert elf.read(program).sizes == binutils_size(program)


@pytest.mark.parametrize("options", [("-c",), ("-shared", "-fPIC"), ("-fPIE", "-pie")])
def test_sizes_of_another_kind(tmp_path: Path, options: tuple[str, ...]) -> None:
    made = compiled(tmp_path, "x86_64", *options)
    assert elf.read(made).sizes == binutils_size(made)


def test_sizes_of_a_core_file_come_from_its_segments(tmp_path: Path) -> None:
    core = patched(compiled(tmp_path, "x86_64", "-static"), ".core", ("<H", 16, ET_CORE))
    assert elf.read(core).sizes.bss > 0
    assert elf.read(core).sizes == binutils_size(core)


def test_sizes_without_section_headers_are_zero(tmp_path: Path) -> None:
    program = compiled(tmp_path, "x86_64", "-static")
    bare = patched(program, ".bare", ("<Q", 40, 0), ("<I", 60, 0))
    assert elf.read(bare).sizes == elf.Sizes(text=0, data=0, bss=0) == binutils_size(bare)


def test_sizes_of_separate_debug_information(tmp_path: Path) -> None:
    program = compiled(tmp_path, "x86_64", "-static")
    run(["objcopy", "--only-keep-debug", program, tmp_path / "bare.debug"])
    debug = elf.read(tmp_path / "bare.debug")
    assert debug.linkage is elf.Linkage.NONE
    assert debug.sizes == binutils_size(tmp_path / "bare.debug")


def test_no_program_of_the_system_passes_for_a_busybox() -> None:
    for path in (each for each in elf_files() if each.parent == Path("/usr/bin")):
        content = path.read_bytes()
        if b"BusyBox v" not in content:
            with pytest.raises(elf.ElfError):
                applets.find(content)


@pytest.mark.parametrize(("calls", "found"), [("getpwnam(words[0])", 1), ("puts(words[0])", 0)])
def test_gate_tells_nss_in_a_real_static_glibc_program(
    tmp_path: Path, calls: str, found: int
) -> None:
    source, program = tmp_path / "users.c", tmp_path / "users"
    head = "#include <pwd.h>\n#include <stdio.h>\nint main(int n, char **words)"
    source.write_text(f"{head} {{ return {calls} != 0; }}\n")
    try:
        run(["gcc", "-static", "-s", source, "-o", program])
    except ProgramError:
        pytest.skip("no gcc with a static glibc here")
    limits = gate.Budget(max_file=10**8, max_text=10**8)
    problems = gate.problems(elf.read(program), program.read_bytes(), name="users", limits=limits)
    assert [True for line in problems if "NSS libraries at run time" in line] == [True] * found
