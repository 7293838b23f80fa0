"""musl for one target, made once from the sources that come with the compiler.

`zig cc` makes a musl for each set of flags that it links with, one file after the other, half a
minute each time. Here it is made once, and every link takes the same. What it is made of is as in
zig (src/libs/musl.zig): musl's own files, functions that zig has rewritten (lib/c.zig), and zig's
compiler-rt.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline.builder.components import toolchain
from pipeline.errors import NiftyError
from pipeline.files import locked, put_cached
from pipeline.run import CLEAN_ENVIRONMENT, ProgramError, last_lines, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.builder.components.slots import Slots
    from pipeline.builder.components.toolchain import Toolchain

# A compiler takes 12 ms to start, and as long for a file of musl's: so many share all files. It is
# no matter of jobs=, so that what each of them does is the same everywhere.
GROUPS = 16
# What links ask for besides crt1.o and -lc, and what has nothing in it: it is in libc.a (musl's
# Makefile, EMPTY_LIB_NAMES), or is there for C++ and constructors of old.
EMPTY = ("m", "rt", "pthread", "crypt", "util", "xnet", "resolv", "dl", "gcc", "gcc_eh")
EMPTY_OBJECTS = ("crti.o", "crtn.o", "crtbeginT.o", "crtend.o")
# Where a sysroot has its libraries.
LIBRARIES = Path("usr/lib")
RECORD = "libc.json"

_LEAN = ("-fno-builtin", "-ffunction-sections", "-fdata-sections", "-fno-unwind-tables")
_FLAGS = (
    *("-std=c99", "-ffreestanding", "-fexcess-precision=standard", "-frounding-math"),
    *("-ffp-contract=off", "-fno-strict-aliasing", "-fno-asynchronous-unwind-tables", *_LEAN),
    *("-fno-stack-protector", "-fomit-frame-pointer", "-fno-PIE", "-Oz", "-w"),
    *("-Wa,--noexecstack", "-D_XOPEN_SOURCE=700", "-nostdinc", "--no-default-config"),
    *("-ffile-compilation-dir=.", "-resource-dir", "library"),
)
_ZIG = ("-OReleaseSmall", "-fstrip", *_LEAN)

# ./NAME are scripts beside it, and nothing here is a path of this machine's: make would read it in
# its own way. ./frontend takes any number of files and leaves each object beside its source.
_MAKEFILE = """\
groups = {groups}
assembled = {assembled}
libc.a: $(groups:%=group%) $(assembled) crt1.o empty.o zigc.o compiler_rt.o
\trm -f $@
\t./zig ar rcsD $@ @objects
group%: ; ./frontend -x c $$(cat $@.files)
%.o: %.s ; ./driver -c -o $@ $<
%.o: %.S ; ./driver -c -o $@ $<
crt1.o: ; ./driver -DCRT -c -o $@ crt/crt1.c
empty.o: ; ./driver -c -o $@ empty.c
zigc.o: ; ./zig build-obj {options} -lc -femit-bin=$@ library/c.zig
compiler_rt.o: ; ./zig build-obj {options} -femit-bin=$@ library/compiler_rt.zig
"""


class LibcError(NiftyError):
    """The C library could not be made."""


def sources(musl: Path, machine: str) -> tuple[str, ...]:
    """What musl is made of for *machine*, as sorted paths below *musl*.

    As in musl's Makefile: src/*/*.c, and src/*/MACHINE/*.[csS] in place of those of that name.
    """
    chosen = {}
    for pattern in ("src/*/*.c", f"src/*/{machine}/*.[csS]"):
        for path in musl.glob(pattern):
            found = path.relative_to(musl)
            chosen[found.parts[1], found.stem] = found.as_posix()
    return tuple(sorted(chosen.values()))


def provide(tools: Toolchain, target: str, cache: Path, *, slots: Slots, log: Path) -> Path:
    """A sysroot for *target* (zig's triple), from *cache* or made there.

    Its usr/lib has crt1.o and libc.a, with compiler-rt in it. Of several processes that want it,
    one makes it and the others wait. What compilers say is appended to *log*. Raises LibcError.
    """
    facts = json.dumps([target, tools.versions, _CODE])
    result = cache / hashlib.sha256(facts.encode()).hexdigest()
    if not _is_whole(result):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{target}.lock"):
            if not _is_whole(result):
                _make(tools, target, result, slots, log)
    return result


# as in compile.py
_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _is_whole(sysroot: Path) -> bool:
    try:
        table = json.loads((sysroot / RECORD).read_text("utf-8"))
        return bool(table) and table == _sums(sysroot / LIBRARIES)
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.[ao]")
    }


def _make(tools: Toolchain, target: str, result: Path, slots: Slots, log: Path) -> None:
    work = result.with_name(f"{target}.work")
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed
    try:
        for part in ("src", "crt", "include"):  # they name each other by ../
            shutil.copytree(tools.musl / part, work / part, copy_function=shutil.copyfile)
        (work / "library").symlink_to(tools.library)
        _describe(tools, target, work)
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(work / "cache"))
        words: list[str | Path] = [tools.make, "-f", "libc.mk"]
        env = {**CLEAN_ENVIRONMENT, **caches, **slots.make_flags()}
        slots.run(words, env=env, cwd=work, log=log, timeout=3600)
        _publish(work, result)
    except ProgramError as error:
        raise LibcError(f"musl for {target} does not compile: {error.message}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, result: Path) -> None:
    staged = work / "sysroot"
    folder = staged / LIBRARIES
    folder.mkdir(parents=True)
    for file in ("libc.a", "crt1.o"):
        (work / file).rename(folder / file)
    for name in EMPTY_OBJECTS:
        shutil.copyfile(work / "empty.o", folder / name)
    for name in EMPTY:
        (folder / f"lib{name}.a").write_bytes(b"!<arch>\n")
    put_cached(staged / RECORD, json.dumps(_sums(folder)).encode())
    shutil.rmtree(result, ignore_errors=True)  # whatever was damaged
    staged.rename(result)


def _describe(tools: Toolchain, target: str, work: Path) -> None:
    """Write a makefile, and the lists of files that it speaks of, to *work*."""
    machine = toolchain.machine(target)
    names = sources(tools.musl, machine)
    in_c = [name for name in names if name.endswith(".c")]
    assembled = [_object(name) for name in names if not name.endswith(".c")]
    for number in range(GROUPS):
        (work / f"group{number}.files").write_text("\n".join(in_c[number::GROUPS]), "utf-8")
    objects = [*(_object(name) for name in names), "zigc.o", "compiler_rt.o"]
    (work / "objects").write_text("\n".join(objects), "utf-8")
    driver: list[str | Path] = [
        tools.zig,
        "clang",
        f"--target={target}",
        *_FLAGS,
        *_includes(target),
    ]
    for name, words in (
        ("zig", [tools.zig]),
        ("driver", driver),
        ("frontend", _frontend(driver, work)),
    ):
        toolchain.script(work / name, f'exec {shlex.join(map(str, words))} "$@"\n')
    text = _MAKEFILE.format(
        groups=" ".join(map(str, range(GROUPS))),
        assembled=" ".join(assembled),
        options=shlex.join(("-target", target, *_ZIG)),
    )
    (work / "libc.mk").write_text(text, "utf-8")


def _object(source: str) -> str:
    return str(PurePosixPath(source).with_suffix(".o"))


def _includes(target: str) -> list[str]:
    own = [f"library/libc/musl/arch/{name}" for name in (toolchain.machine(target), "generic")]
    compiler, *musl = toolchain.headers(Path("library"), target)
    folders = (*own, "src/include", "src/internal", "include", *musl)
    return [*(f"-I{folder}" for folder in folders), "-isystem", str(compiler)]


def _frontend(driver: Sequence[str | Path], work: Path) -> list[str]:
    """The compiler proper as *driver* would call it (clang -###), less what names one file.

    Given many files, it leaves an object beside each; the driver would start one for each file.
    """
    (work / "empty.c").touch()
    told = run([*driver, "-###", "-c", "empty.c", "-o", "empty.o"], cwd=work).stderr
    start, _, rest = told.rpartition(' "-cc1" ')
    if not start:
        raise LibcError(f"clang -### names no compiler:\n{last_lines(told)}")
    words = [str(driver[0]), "-cc1", *shlex.split(rest)]
    for option, count in (("-main-file-name", 2), ("-o", 2), ("-x", 3)):
        at = words.index(option)
        del words[at : at + count]
    return words
