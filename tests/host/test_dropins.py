"""Programs of the host in real instances, over SSH: libraries bound from the host, or copied."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from tests.support.host.guests import Guests
from tests.support.host.testroot import PYTHONS, wanted_suite
from tests.support.host.user import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
PYTHON = PYTHONS[wanted_suite()]
# source, target, and what it needs beside libraries
PROGRAMS = (
    ("/usr/bin/gawk", "usr/local/bin/gawk", ()),
    ("/usr/bin/bash", "usr/local/bin/bash", ()),
    ("/usr/bin/python3", "usr/local/bin/python3", (f"/usr/lib/{PYTHON}",)),
    ("/usr/bin/git", "usr/bin/git", ("/usr/lib/git-core", "/usr/share/git-core")),
    ("/usr/bin/curl", "usr/local/bin/curl", ()),
)
COMMIT = "git -c user.name=a -c user.email=b commit -q --allow-empty -m works"
MODES = {"bind": 2401, "copy": 2402}


def image(mode: str) -> str:
    return f"/root/{mode}.tar"


def dropins(mode: str) -> list[dict[str, object]]:
    return [
        {"source": source, "target": target, "libraries": mode, "files": files}
        for source, target, files in PROGRAMS
    ]


def build(user: User, mode: str) -> None:
    """Assemble an image inside the machine, of the machine's own programs."""
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    recipe = json.dumps({"name": mode, "dropin": dropins(mode)}).encode()
    argv = [sys.executable, "-m", "tests.support.host.variant", image(mode)]
    user.machine.run(argv, cwd=PROJECT, env=env, stdin=recipe, timeout=300)


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """An instance of each kind: niftybind and niftycopy."""
    user = User(machine)
    try:
        for mode, port in MODES.items():
            build(user, mode)
            user.doit("deploy", f"name={mode}", f"port={port}", f"image={image(mode)}", "start=yes")
        yield user
    finally:
        user.clean()
        user.shell("rm -f /root/*.tar")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("gawk -M 'BEGIN { print 2^100 }'", "1267650600228229401496703205376\n"),
        ("bash -c 'a=(x y z); echo ${#a[@]} ${BASH_VERSION%%.*}'", "3 5\n"),
        ("python3 -c 'import ssl, sqlite3, decimal; print(decimal.Decimal(2).sqrt())'", "1.414"),
        (
            f"cd /tmp && git init -q r && cd r && {COMMIT} && git log --format=%s; rm -r /tmp/r",
            "works\n",
        ),
        ("curl --silent --show-error file:///etc/hostname", "nifty"),
        # a helper of git's own directory, with libcurl and all that it needs
        ("git ls-remote https://127.0.0.1:1/ 2>&1 | grep -c 'Failed to connect'", "1\n"),
    ],
)
def test_program_works(fleet: User, mode: str, command: str, told: str) -> None:
    said = fleet.ssh(f"nifty{mode}", command)
    assert said.stdout.startswith(told), said


def test_libraries_are_the_hosts_and_read_only(fleet: User) -> None:
    options = fleet.ssh("niftybind", f"grep ' {LIBRARIES} ' /proc/mounts").stdout.split()[3]
    inside = fleet.ssh("niftybind", f"stat -c %i {LIBRARIES}/libc.so.6").stdout
    assert options.split(",")[0] == "ro"
    assert inside == fleet.shell(f"stat -c %i {LIBRARIES}/libc.so.6")


def test_copied_libraries_are_the_images(fleet: User) -> None:
    mounts = fleet.ssh("niftycopy", f"grep -c ' {LIBRARIES} ' /proc/mounts; true").stdout
    where = fleet.ssh("niftycopy", f"readlink -f {LIBRARIES}/libc.so.6").stdout
    assert (mounts, where) == ("0\n", f"/cbin/dropin{LIBRARIES}/libc.so.6\n")


@pytest.mark.parametrize(
    "attempt",
    [
        f"mount -o remount,rw {LIBRARIES}",
        f"mount -o remount,bind,rw {LIBRARIES}",
        f"umount {LIBRARIES}",
        f"touch {LIBRARIES}/new",
        f"touch /usr/lib/{PYTHON}/new",
    ],
)
def test_root_inside_cannot_change_the_hosts_libraries(fleet: User, attempt: str) -> None:
    inside = Guests(fleet.machine, "nspawn", ("niftybind",))
    assert inside.root("niftybind", attempt).returncode != 0


def test_instance_sees_nothing_else_of_usr_lib(fleet: User) -> None:
    told = fleet.ssh("niftybind", "ls /usr/lib").stdout.split()
    assert set(told) == {"git-core", "nifty", PYTHON, "x86_64-linux-gnu"}


def test_upgrade_brings_mount_points_and_links(fleet: User) -> None:
    fleet.doit("deploy", "name=plain", "port=2403", "start=yes")
    fleet.doit("upgrade", "name=plain", f"image={image('bind')}")
    there = fleet.ssh("niftyplain", "gawk 'BEGIN { print 6 * 7 }'").stdout
    fleet.doit("upgrade", "name=plain", "rollback=yes")
    gone = fleet.ssh("niftyplain", "ls -d /lib64 /usr/local/bin/gawk", check=False).stdout
    fleet.doit("undeploy", "name=plain", "yes=yes")
    assert (there, gone) == ("42\n", "")


@pytest.fixture
def without_mpfr(fleet: User) -> Iterator[User]:
    """The host after an upgrade that took away a library of gawk's."""
    fleet.shell(f"mkdir /root/away && mv {LIBRARIES}/libmpfr.so* /root/away")
    yield fleet
    fleet.shell(f"mv /root/away/* {LIBRARIES} && rmdir /root/away")


def test_doctor_says_whose_drop_ins_no_longer_start(without_mpfr: User) -> None:
    told = without_mpfr.doit("doctor", "count=2", "format=json", check=False)
    rows = {row["name"]: row for row in json.loads(told.stdout) if "drop-ins" in row["name"]}
    (row,) = rows.values()
    assert (told.returncode, row["status"]) == (1, "fail")
    assert row["why"].endswith("do not start in niftybind")
    assert "needs libmpfr.so.6, which is not there; searched" in row["todo"]


def test_instance_whose_drop_in_is_broken_starts_all_the_same(without_mpfr: User) -> None:
    without_mpfr.doit("restart", "name=bind")
    told = without_mpfr.ssh("niftybind", "gawk 1; bash -c 'echo works'", check=False)
    assert told.stdout == "works\n"


@pytest.mark.parametrize(
    "words",
    [
        ("deploy", "name=other", "port=2404"),
        ("upgrade", "name=copy"),
        ("deploy", "dry=yes", "name=other", "port=2404"),
    ],
)
def test_host_without_a_library_is_refused_before_anything(
    without_mpfr: User, words: tuple[str, ...]
) -> None:
    before = without_mpfr.census().stamps
    told = without_mpfr.refused(*words, f"image={image('bind')}")
    assert "needs libmpfr.so.6, which is not there" in told
    assert without_mpfr.census().stamps == before


def test_inspect_refuses_to_cover_libraries_of_the_image(fleet: User) -> None:
    words = ("inspect", "file=/usr/bin/gawk", f"image={image('copy')}", "format=json")
    told = json.loads(fleet.doit(*words).stdout)["image"]
    assert (told["name"], told["problems"]) == (
        "copy",
        [f"{LIBRARIES}: the image has {LIBRARIES} itself"],
    )


def test_inspect_names_what_would_be_bound(fleet: User) -> None:
    told = fleet.doit("inspect", "file=/usr/bin/gawk").stdout
    head = 'would run in nifty on this host, as a drop-in with libraries = "bind":'
    assert f"{head}\n  {LIBRARIES} is bound read-only\n" in told


def test_inspect_says_why_not(without_mpfr: User) -> None:
    told = without_mpfr.doit("inspect", "file=/usr/bin/gawk").stdout
    assert "would not run in nifty on this host:\n  /usr/bin/gawk: needs libmpfr.so.6" in told


def test_shell_in_the_image_has_the_libraries(fleet: User) -> None:
    command = "command=gawk 'BEGIN { print 6 * 7 }'"
    assert fleet.doit("shell", f"image={image('bind')}", command).stdout == "42\n"


def test_manifest_of_bind_names_no_path_of_the_build_host(fleet: User) -> None:
    text = fleet.shell('cat /home/.nifty/images/*.json | grep \'"name":"bind"\'')
    assert LIBRARIES not in text
