"""Facts of ELF files that the wheel's compiler makes, and of files that lie."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import elf
from pipeline.builder.components import gate
from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Callable

    Compile = Callable[..., bytes]

pytestmark = pytest.mark.timeout(300)  # two C libraries are made, where that is not done yet

# Needs no libc, so any target's compiles in no time.
BARE = """
int zero[64];
volatile int one = 1;
void _start(void) { for (;;) zero[one] += one; }
"""
HELLO = '#include <stdio.h>\nint main(void) { return puts("hello"); }'
LIBRARY = "int twice(int x) { return 2 * x; }\nint extra(void) { return 1; }"
VERSIONS = "TINY_1.2 { global: twice; local: *; };\nTINY_1.10 { global: extra; } TINY_1.2;"

ROOMY = gate.Budget(max_file=10**7, max_text=10**7)
PT_DYNAMIC, PT_INTERP, PT_GNU_STACK, PT_GNU_RELRO = 2, 3, 0x6474E551, 0x6474E552
DT_RPATH, DT_RUNPATH = 15, 29


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles C text: `compiled(source, *options, target=...)` gives the file's bytes."""
    folder = tmp_path_factory.mktemp("elf")
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    zig = Path(spec.origin).parent / "zig"
    caches = {
        "ZIG_GLOBAL_CACHE_DIR": str(PROJECT / "artifacts/cache/zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "cache"),
    }
    done: dict[tuple[str, ...], bytes] = {}

    def compile_c(text: str, *options: str, target: str = "x86_64-linux-musl") -> bytes:
        key = (text, *options, target)
        if key not in done:
            source, program = folder / f"{len(done)}.c", folder / f"{len(done)}"
            source.write_text(text)
            words: list[str | Path] = [
                zig,
                "cc",
                "-target",
                target,
                "-Oz",
                *options,
                source,
                "-o",
                program,
            ]
            run(words, env={**CLEAN_ENVIRONMENT, **caches}, cwd=folder)
            done[key] = program.read_bytes()
        return done[key]

    return compile_c


@pytest.fixture(scope="session")
def bare(compiled: Compile) -> bytes:
    return compiled(BARE, "-nostdlib", "-static")


@pytest.fixture(scope="session")
def dynamic(compiled: Compile) -> bytes:
    options = ("-s", "-Wl,--build-id=sha1", "-Wl,-rpath,$ORIGIN/../lib:/opt/lib")
    return compiled(HELLO, *options, target="x86_64-linux-gnu")


@pytest.fixture(scope="session")
def shared(compiled: Compile, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    script = tmp_path_factory.mktemp("versions") / "map"
    script.write_text(VERSIONS)
    link = (f"-Wl,--version-script={script}", "-Wl,-soname,libtiny.so.1")
    return compiled(LIBRARY, "-shared", "-fPIC", "-nostdlib", *link)


def program_header(content: bytes, kind: int) -> int:
    """Where the program header of *kind* begins (64-bit, little endian)."""
    (count,) = struct.unpack_from("<H", content, 56)
    places = range(64, 64 + 56 * count, 56)
    return next(at for at in places if struct.unpack_from("<I", content, at)[0] == kind)


def changed(content: bytes, layout: str, offset: int, value: int) -> bytes:
    copy = bytearray(content)
    struct.pack_into(layout, copy, offset, value)
    return bytes(copy)


def facts(content: bytes) -> elf.ElfFacts:
    return elf.parse(content, "tiny")


def problem(content: bytes) -> str:
    with pytest.raises(elf.ElfError) as caught:
        elf.parse(content, "tiny")
    assert caught.value.message.startswith("tiny: ")
    return caught.value.message.removeprefix("tiny: ")


# --- facts ---


@pytest.mark.parametrize(
    ("target", "machine", "bits", "endianness"),
    [
        ("x86_64", "x86_64", 64, "little"),
        ("x86", "i686", 32, "little"),
        ("aarch64", "aarch64", 64, "little"),
        ("aarch64_be", "aarch64_be", 64, "big"),
        ("arm", "arm", 32, "little"),
        ("powerpc64le", "ppc64le", 64, "little"),
        ("powerpc", "ppc", 32, "big"),
        ("riscv64", "riscv64", 64, "little"),
        ("s390x", "s390x", 64, "big"),
        ("loongarch64", "loongarch64", 64, "little"),
    ],
)
def test_machine_is_named_as_uname_does(
    compiled: Compile, target: str, machine: str, bits: int, endianness: str
) -> None:
    found = facts(compiled(BARE, "-nostdlib", "-static", target=f"{target}-linux-musl"))
    assert (found.machine, found.bits, found.endianness) == (machine, bits, endianness)


def test_unknown_machine_keeps_its_number(bare: bytes) -> None:
    assert facts(changed(bare, "<H", 18, 4711)).machine == "machine-4711"


def test_static_program(bare: bytes) -> None:
    found = facts(bare)
    assert (found.type, found.linkage, found.pie) == (elf.FileType.EXEC, elf.Linkage.STATIC, False)


def test_static_pie(compiled: Compile) -> None:
    found = facts(compiled(BARE, "-nostdlib", "-static", "-fPIE", "-pie"))
    assert (found.linkage, found.pie) == (elf.Linkage.STATIC_PIE, True)


def test_dynamic_program(dynamic: bytes) -> None:
    found = facts(dynamic)
    assert found.linkage is elf.Linkage.DYNAMIC
    assert found.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert found.needed == ("libc.so.6",)


def test_shared_library(shared: bytes) -> None:
    found = facts(shared)
    assert (found.linkage, found.soname) == (elf.Linkage.SHARED, "libtiny.so.1")


def test_object_file_cannot_run(compiled: Compile) -> None:
    found = facts(compiled(BARE, "-c"))
    assert (found.type, found.linkage) == (elf.FileType.REL, elf.Linkage.NONE)


def test_runpath_keeps_its_order(dynamic: bytes) -> None:
    found = facts(dynamic)
    assert (found.runpath, found.rpath) == (("$ORIGIN/../lib", "/opt/lib"), ())


def test_rpath_is_told_from_runpath(dynamic: bytes) -> None:
    (start,) = struct.unpack_from("<Q", dynamic, program_header(dynamic, PT_DYNAMIC) + 8)
    entries = range(start, len(dynamic), 16)
    runpath = next(at for at in entries if struct.unpack_from("<Q", dynamic, at)[0] == DT_RUNPATH)
    found = facts(changed(dynamic, "<Q", runpath, DT_RPATH))
    assert (found.runpath, found.rpath) == ((), ("$ORIGIN/../lib", "/opt/lib"))


def test_versions_needed_belong_to_a_library(dynamic: bytes) -> None:
    assert facts(dynamic).versions_needed == {"libc.so.6": ("GLIBC_2.2.5",)}


def test_versions_defined_are_in_natural_order_without_base(shared: bytes) -> None:
    assert facts(shared).versions_defined == ("TINY_1.2", "TINY_1.10")


def test_dynamic_facts_do_not_need_section_headers(dynamic: bytes) -> None:
    stripped = changed(changed(dynamic, "<Q", 40, 0), "<I", 60, 0)
    assert facts(stripped) == replace(facts(dynamic), sizes=elf.Sizes(text=0, data=0, bss=0))


def test_build_id(dynamic: bytes) -> None:
    build_id = facts(dynamic).build_id
    assert build_id is not None
    assert bytes.fromhex(build_id) in dynamic


def test_relro_is_full_when_bound_at_start(dynamic: bytes) -> None:
    assert facts(dynamic).relro is elf.Relro.FULL


def test_relro_is_partial_when_bound_lazily(compiled: Compile) -> None:
    lazy = compiled(HELLO, "-s", "-Wl,-z,lazy", target="x86_64-linux-gnu")
    assert facts(lazy).relro is elf.Relro.PARTIAL


def test_relro_is_none_without_its_segment(dynamic: bytes) -> None:
    assert facts(changed(dynamic, "<I", program_header(dynamic, PT_GNU_RELRO), 0)).relro == "none"


def test_stack_is_not_executable(bare: bytes) -> None:
    assert not facts(bare).executable_stack


def test_stack_with_x_is_executable(bare: bytes) -> None:
    assert facts(changed(bare, "<I", program_header(bare, PT_GNU_STACK) + 4, 7)).executable_stack


@pytest.mark.parametrize(("target", "executable"), [("x86_64", True), ("aarch64", False)])
def test_missing_stack_header_depends_on_the_machine(
    compiled: Compile, target: str, *, executable: bool
) -> None:
    program = compiled(BARE, "-nostdlib", "-static", target=f"{target}-linux-musl")
    without = changed(program, "<I", program_header(program, PT_GNU_STACK), 0)
    assert facts(without).executable_stack is executable


def test_segments_are_the_loadable_ones(bare: bytes) -> None:
    found = facts(bare)
    assert [segment.flags for segment in found.segments] == ["r--", "r-x", "rw-"]
    assert found.text_segment == found.segments[1].memsz > 0
    assert found.segments[2].memsz - found.segments[2].filesz >= 256  # zero[]


def test_json_is_plain(dynamic: bytes) -> None:
    plain = elf.as_json(facts(dynamic))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["versions_needed"] == {"libc.so.6": ["GLIBC_2.2.5"]}


# --- files that are none, or lie ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ELF file: is empty"),
        (b"#!/bin/sh\necho\n", "not an ELF file: starts with '#!/bin/sh'"),
        (b"\x1f\x8b\x08\0", "not an ELF file: starts with the bytes 1f 8b 08 00"),
        (b"\x7fELF", "broken ELF file: 4 bytes, the header alone has 64"),
    ],
)
def test_what_is_not_elf_is_named(content: bytes, message: str) -> None:
    assert problem(content) == message


@pytest.mark.parametrize(
    ("layout", "offset", "value", "message"),
    [
        ("<B", 4, 9, "Invalid EI_CLASS"),
        ("<B", 6, 0, "version 0, expected 1"),
        ("<H", 16, 0xFE00, "type 65024, expected one of"),
        ("<Q", 32, 2**64 - 1, "program headers end at byte"),
        ("<Q", 40, 2**63, "section headers end at byte"),
        ("<H", 54, 0, "a program header of 0 bytes, expected 56"),
        ("<H", 58, 0, "a section header of 0 bytes, expected 64"),
        ("<H", 56, 0xFFFE, "65534 program headers end at byte"),
        ("<H", 60, 0xFFFE, "65534 section headers end at byte"),
        ("<H", 62, 0x1000, "section names in section 4096"),
        ("<H", 62, 1, "section names in section 1, which is no string table"),
    ],
)
def test_header_that_lies_is_refused(
    dynamic: bytes, layout: str, offset: int, value: int, message: str
) -> None:
    assert message in problem(changed(dynamic, layout, offset, value))


def test_segment_beyond_the_end_is_refused(dynamic: bytes) -> None:
    beyond = changed(dynamic, "<Q", program_header(dynamic, PT_INTERP) + 8, 10**9)
    assert "ends at byte 1000000028, the file at" in problem(beyond)


def test_unterminated_interpreter_is_refused(dynamic: bytes) -> None:
    short = changed(dynamic, "<Q", program_header(dynamic, PT_INTERP) + 32, 5)
    assert problem(short) == "broken ELF file: PT_INTERP holds no path that ends"


def test_unprintable_name_is_refused(dynamic: bytes) -> None:
    assert "not printable UTF-8" in problem(dynamic.replace(b"libc.so.6", b"libc\x1bso.6"))


@pytest.mark.integration  # some seconds: not for every turn
def test_any_truncation_gives_an_elf_error(dynamic: bytes) -> None:
    for length in range(len(dynamic)):
        problem(dynamic[:length])


@pytest.mark.integration  # some seconds: not for every turn
@pytest.mark.parametrize("kind", ["program", "library", "object"])
def test_no_corruption_gives_anything_but_facts_or_an_elf_error(
    kind: str, compiled: Compile, dynamic: bytes, shared: bytes
) -> None:
    whole = {"program": dynamic, "library": shared, "object": compiled(BARE, "-c")}[kind]
    dice = random.Random(kind)  # noqa: S311 (a seed makes a failure repeatable)
    zones = (range(64), range(64, 64 + 56 * 10), range(len(whole) - 1500, len(whole)))
    survived = 0
    for _ in range(1500):
        copy = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 8, 32))):
            at, width = dice.choice(dice.choice(zones)), dice.choice((1, 2, 4, 8))
            new = dice.choice((bytes(width), b"\xff" * width, dice.randbytes(width)))
            copy[at : at + width] = new[: len(copy) - at]
        try:
            elf.as_json(facts(bytes(copy)))
            survived += 1
        except elf.ElfError:
            continue
    assert survived > 0  # or the corruptions reach nothing but the identification


def test_read_equals_parse(tmp_path: Path, dynamic: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(dynamic)
    assert elf.read(path) == facts(dynamic)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(elf.ElfError, match="cannot be read: Is a directory"):
        elf.read(tmp_path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(elf.ElfError, match="none: cannot be read: No such file"):
        elf.read(tmp_path / "none")


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(elf.ElfError, match="is no regular file"):
        elf.read(tmp_path / "fifo")


# --- the gate ---


def refused(content: bytes, limits: gate.Budget = ROOMY) -> tuple[str, ...]:
    return gate.problems(facts(content), content, name="tiny", limits=limits)


def test_gate_refuses_a_dynamic_program(dynamic: bytes) -> None:
    assert refused(dynamic) == (
        "tiny: must be static, but wants the interpreter /lib64/ld-linux-x86-64.so.2",
        "tiny: must be static, but needs 1 libraries: libc.so.6",
    )


def test_gate_refuses_a_library(shared: bytes) -> None:
    message = "tiny: must be a static program, but its type is DYN, its linkage shared"
    assert refused(shared) == (message,)


def test_gate_refuses_nss_in_a_static_glibc_program(bare: bytes) -> None:
    marked = bare + b"Fatal glibc error: %s\0libnss_%s.so%s\0"
    (found,) = refused(marked)
    assert "loads its NSS libraries at run time (has libnss_)" in found


def test_gate_allows_a_mention_of_nss_outside_glibc(bare: bytes) -> None:
    assert refused(bare + b"/etc/nsswitch.conf\0") == ()


def test_gate_refuses_an_executable_stack(bare: bytes) -> None:
    (found,) = refused(changed(bare, "<I", program_header(bare, PT_GNU_STACK), 0))
    assert found.startswith("tiny: its stack is executable")


def test_gate_names_size_limit_and_excess(bare: bytes) -> None:
    limits = gate.Budget(max_file=len(bare) - 1, max_text=facts(bare).text_segment)
    assert refused(bare, limits) == (
        f"tiny: the file has {len(bare):,} bytes, the limit is {len(bare) - 1:,} (1 too many)",
    )


def test_gate_weighs_the_text_segment(bare: bytes) -> None:
    (found,) = refused(bare, gate.Budget(max_file=10**6, max_text=2))
    text = facts(bare).text_segment
    assert found.endswith(f"text segment has {text} bytes, the limit is 2 ({text - 2} too many)")
