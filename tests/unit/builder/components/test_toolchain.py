"""What compiling needs of a system, and the programs that come along."""

from __future__ import annotations

import bz2
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline import distribution
from pipeline.builder.components import libc, plain, toolchain
from pipeline.builder.components.slots import Slots
from pipeline.host.units.runners import RUNNERS
from pipeline.paths import PROJECT
from pipeline.run import run
from pipeline.settings import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n'
TUMBLEWEED = 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n'


def used() -> list[str]:
    """Every program that some message says how to install."""
    needs = [need.program for runner in RUNNERS.values() for need in runner.needs]
    return sorted({*toolchain.PROGRAMS, *needs, "login", "nft"})


@pytest.fixture
def bzip2(tmp_path: Path) -> Path:
    """The stand-in, as a build finds it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    toolchain.bzip2(tools)
    return tools / "bzip2"


@pytest.mark.parametrize(("words", "level"), [("", 9), ("-1", 1), ("-9 -c", 9)])
def test_bzip2_that_comes_along_packs_as_the_real_one(bzip2: Path, words: str, level: int) -> None:
    packed = ["sh", "-c", f"{bzip2} {words} | od -v -t x1 -A n"]
    told = run(packed, stdin=b"configuration\n" * 5000).stdout
    assert bytes.fromhex(told) == bz2.compress(b"configuration\n" * 5000, level)


def test_bzip2_that_comes_along_refuses_what_it_cannot(bzip2: Path) -> None:
    told = run([bzip2, "-d"], check=False)
    assert (told.returncode, told.stderr) == (1, "bzip2: -d: this stand-in has -1 to -9 only\n")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_compiler_has_all_headers_for_an_architecture(architecture: str) -> None:
    found = toolchain.find(architecture)
    folders = toolchain.headers(found.library, found.target)
    assert [path for path in folders if not path.is_dir()] == []
    assert folders[-2].joinpath("asm", "unistd.h").is_file()  # the machine's own, of the kernel


@pytest.mark.parametrize("name", ["a\\b", 'a b"c', "a\nb", "a\tb \\#", "$HOME: #'ä'"])
def test_the_compiler_works_wherever_it_lies(tmp_path: Path, name: str) -> None:
    real = toolchain.find(os.uname().machine)
    there = tmp_path / name / "ziglang"
    there.mkdir(parents=True)
    (there / "lib").symlink_to(real.zig.parent / "lib")
    try:
        (there / "zig").hardlink_to(real.zig)
    except OSError:  # of another file system, or of another user
        shutil.copy(real.zig, there / "zig")
    work, sysroot = tmp_path / "work", tmp_path / name / "sysroot"
    cache = PROJECT / "artifacts" / "cache" / "musl"
    cache.mkdir(parents=True, exist_ok=True)
    with Slots() as slots:
        made = libc.provide(real, real.host_target, cache, slots=slots, log=tmp_path / "log")
    sysroot.symlink_to(made)
    tools = replace(real, zig=there / "zig")
    tools.install(work / "tools", work, lambda _target: sysroot)
    (work / "x.c").write_text('#include <stdio.h>\nint main(void) { return puts("works") < 0; }\n')
    environment = tools.environment(work / "tools", epoch=0)
    run(["cc", "-MD", "x.c", "-o", "x"], cwd=work, env=environment)
    assert run([work / "x"]).stdout == "works\n"
    assert "/stdio.h" in (work / "x.d").read_text()


@pytest.mark.parametrize("name", ["a\\b", "a\nb \\#", "$HOME: #'ä'"])
def test_how_musl_is_compiled_does_not_depend_on_where(tmp_path: Path, name: str) -> None:
    real = toolchain.find(os.uname().machine)
    there = tmp_path / name / "ziglang"
    there.mkdir(parents=True)
    for part in ("lib", "zig"):
        (there / part).symlink_to(real.zig.parent / part)
    told = []
    for tools, work in (
        (real, tmp_path / "plain"),
        (replace(real, zig=there / "zig"), there / "w"),
    ):
        work.mkdir()
        (work / "library").symlink_to(tools.library)
        libc._describe(tools, tools.target, work)
        files = {path.name: path.read_text() for path in work.iterdir() if path.is_file()}
        zig = f"exec {shlex.quote(str(tools.zig))} "
        told.append({title: text.replace(zig, "exec zig ") for title, text in files.items()})
    assert told[0] == told[1]


def test_a_folder_with_a_plain_path_is_where_compiling_happens(tmp_path: Path) -> None:
    assert plain.place(tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize("name", ["a b", "a\\b", 'a"b', "a\nb", "a$b", "a#b", "a:b", "ä", "(", "*"])
def test_any_other_folder_gives_way_to_one_for_temporary_files(tmp_path: Path, name: str) -> None:
    chosen = plain.place(tmp_path / name)
    assert str(chosen) in {tempfile.gettempdir(), "/tmp", "/var/tmp"}


def test_where_no_path_is_plain_the_characters_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_takes_programs", lambda _folder: False)
    with pytest.raises(toolchain.ToolchainError) as caught:
        toolchain.require(folder=tmp_path / 'a\\b "c"')
    (line,) = caught.value.message.splitlines()
    assert r"""the compiler cannot have '\\', ' ', '"' in a path""" in line
    assert "set TMPDIR to" in str(caught.value.hint)


def test_this_system_has_what_compiling_needs() -> None:
    toolchain.require()
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    pinned = extras["optional-dependencies"]["build"]
    assert {f"{name}=={version}" for name, version in toolchain.versions()} < set(pinned)


def test_all_that_is_missing_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in toolchain.PROGRAMS:
        if program not in ("awk", "cmp", "diff"):
            (tmp_path / program).symlink_to("/bin/sh")
    monkeypatch.setattr(toolchain, "MODULES", {"_bz2": "bz2", "_none_such": "lzma"})
    monkeypatch.setattr(distribution, "release", lambda _root: DEBIAN)
    with pytest.raises(toolchain.ToolchainError) as caught:
        toolchain.require(str(tmp_path))
    assert caught.value.message.splitlines() == [
        f"no such program in {tmp_path}: awk, cmp, diff",
        f"{sys.executable} was compiled without lzma",
    ]
    assert str(caught.value.hint).startswith("apt-get install mawk diffutils; ")


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (DEBIAN, "apt-get install mawk diffutils systemd-container"),
        ("ID=mint\nID_LIKE='ubuntu debian'\n", "apt-get install mawk diffutils systemd-container"),
        ("ID=fedora\n", "dnf install gawk diffutils systemd-container"),
        ('ID="rocky"\nID_LIKE="rhel fedora"\n', "dnf install gawk diffutils systemd-container"),
        ("ID=arch\n", "pacman -S gawk diffutils systemd"),
        (TUMBLEWEED, "zypper install gawk diffutils systemd-container"),
        ("ID=alpine\n", "install what brings awk, cmp, systemd-nspawn"),
        ("ID=none-such\n", "install what brings awk, cmp, systemd-nspawn"),
        ("", "install what brings awk, cmp, systemd-nspawn"),
    ],
)
def test_packages_are_called_as_the_distribution_calls_them(release: str, expected: str) -> None:
    assert distribution.install(("awk", "cmp", "systemd-nspawn"), release) == expected


def test_alpine_has_all_that_compiling_needs() -> None:
    told = distribution.install(toolchain.PROGRAMS, "ID=alpine\n")
    assert told == "apk add busybox-binsh gawk coreutils diffutils findutils grep sed"


@pytest.mark.parametrize("release", [DEBIAN, "ID=fedora\n", "ID=arch\n", TUMBLEWEED])
@pytest.mark.parametrize("program", used())
def test_each_program_that_is_asked_for_has_a_package(program: str, release: str) -> None:
    assert not distribution.install((program,), release).startswith("install what")


@pytest.mark.parametrize(
    ("release", "start"),
    [
        (DEBIAN, "boot this host with systemd"),
        ("", "boot this host with systemd"),
        ("ID=alpine\nVERSION_ID=3.22.1\n", "this distribution has no systemd: it builds images"),
        ('ID="void"\n', "this distribution has no systemd: it builds images"),
        ("ID=devuan\nID_LIKE=debian\n", "this distribution has no systemd: it builds images"),
    ],
)
def test_a_host_without_systemd_is_told_what_it_can_do(release: str, start: str) -> None:
    assert distribution.boot(release).startswith(start)


def test_release_is_read_from_etc_first(tmp_path: Path) -> None:
    for folder, text in (("usr/lib", "ID=arch\n"), ("etc", DEBIAN)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "os-release").write_text(text)
    assert distribution.release(tmp_path) == DEBIAN
    (tmp_path / "etc/os-release").unlink()
    assert distribution.release(tmp_path) == "ID=arch\n"


def test_host_without_release_has_none(tmp_path: Path) -> None:
    assert distribution.release(tmp_path) == ""
