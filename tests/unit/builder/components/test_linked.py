"""What the linker took is read from its own record, and held against the recipe."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.components import libc, licences, linked, toolchain
from pipeline.builder.components.licences import LicenceError
from pipeline.builder.components.linked import LinkedError
from pipeline.builder.components.slots import Slots
from pipeline.builder.recipes import catalogue
from pipeline.builder.recipes.component import LicenceFile
from pipeline.paths import PROJECT
from pipeline.run import run

if TYPE_CHECKING:
    from pathlib import Path

DROPBEAR = catalogue.load(PROJECT / "recipes").components["dropbear"]
OWN = ("compiler-rt", "musl", "zig-libc")
NAMES = ("libtomcrypt", "libtommath")


def test_the_record_of_a_link_names_the_libraries(tmp_path: Path) -> None:
    """For real: a library of one's own, one that is not needed, and the C library."""
    tools = toolchain.find(os.uname().machine)
    cache = PROJECT / "artifacts" / "cache" / "musl"
    with Slots() as slots:
        sysroot = partial(libc.provide, tools, cache=cache, slots=slots, log=tmp_path / "log")
        tools.install(tmp_path / "tools", tmp_path, sysroot)
    env = tools.environment(tmp_path / "tools", epoch=0)
    call = partial(run, cwd=tmp_path, env=env)
    (tmp_path / "main.c").write_text("int twice(int); int main(int n) { return twice(n); }\n")
    (tmp_path / "twice.c").write_text("int twice(int n) { return 2 * n; }\n")
    (tmp_path / "other.c").write_text("int other(void) { return 1; }\n")
    call(["cc", "-c", "main.c", "twice.c", "other.c"])
    (tmp_path / "in").mkdir()
    for archive, member in (("in/lib.a", "twice.o"), ("libtwice.a", "twice.o"), ("o.a", "other.o")):
        call(["ar", "rcs", archive, member])
    call(["cc", "main.o", "in/lib.a", "o.a", "-o", "plain"])
    call(["cc", "main.o", "libtwice.a", "o.a", "-o", "in/program"])
    plain = linked.libraries(tools.linked(tmp_path / "tools", "plain"))
    program = linked.libraries(tools.linked(tmp_path / "tools", "program"))
    assert "musl" in plain
    assert set(plain) <= set(OWN)
    assert set(program) == {*plain, "libtwice"}


def test_members_of_the_c_library_are_told_apart(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text(
        "reference\textracted\tsymbol\n"
        "crt1.o\t/a (b)/lib/libc.a(exit.o)\texit\n"
        "main.o\t/a (b)/lib/libc.a(compiler_rt.o)\t__udivti3\n"
        "main.o\t/a (b)/lib/libc.a(zigc.o)\tstrlen\n"
        "<internal>\tlibbb/lib.a(xfuncs.o)\txread\n"
        "main.o\tlibtomcrypt/libtomcrypt.a(aes.o)\taes_desc\n"
        "main.o\tplain.o\tanything\n"
    )
    assert linked.libraries(record) == ("compiler-rt", "libtomcrypt", "musl", "zig-libc")


def test_what_the_recipe_names_is_what_was_taken() -> None:
    assert list(linked._differences(set(NAMES), set(NAMES))) == []
    linked.check(DROPBEAR, [*OWN, *NAMES])


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([*OWN, *NAMES, "libz"], "libz: is in the binary, and no [[include]] names it"),
        (
            [*OWN, "libtommath"],
            "libtomcrypt: an [[include]] names it, and nothing of it is in the binary",
        ),
    ],
)
def test_a_recipe_that_says_otherwise(found: list[str], problem: str) -> None:
    with pytest.raises(
        LinkedError, match="what is linked in is not what its recipe says"
    ) as caught:
        linked.check(DROPBEAR, found)
    assert caught.value.problems == (problem,)


def test_the_compilers_libraries_have_versions_and_licences() -> None:
    found = linked.of_compiler()
    zig = dict(toolchain.versions())["ziglang"]
    assert {name: item.version for name, item in found.items()} == {
        "musl": "1.2.5",
        "compiler-rt": zig,
        "zig-libc": zig,
    }
    assert b"Rich Felker" in found["musl"].text()
    assert b"Zig contributors" in found["zig-libc"].text()


def test_licence_files_are_those_that_were_read() -> None:
    texts = {item.file: item.file.encode() for item in DROPBEAR.licence_files}
    pins = [
        LicenceFile(file=name, sha256=hashlib.sha256(text).hexdigest())
        for name, text in texts.items()
    ]
    includes = [
        item.model_copy(update={"licence_file": (pin,)})
        for item, pin in zip(DROPBEAR.include, pins[1:], strict=True)
    ]
    pinned = DROPBEAR.model_copy(update={"licence_file": pins[:1], "include": tuple(includes)})
    assert licences.read(pinned, lambda name: texts[name]) == {name: name for name in texts}

    def other(name: str) -> bytes:
        if name == "LICENSE":
            raise FileNotFoundError
        return b"pay me"

    with pytest.raises(LicenceError, match="its licence files") as caught:
        licences.read(pinned, other)
    digest = hashlib.sha256(b"pay me").hexdigest()
    assert caught.value.problems == (
        "LICENSE: not in dropbear-2026.94.tar.bz2",
        *(f"{pin.file}: has the sha256 {digest}, the recipe pins {pin.sha256}" for pin in pins[1:]),
    )
