"""Assembling: from small fake components to the layout that the design promises."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.builder.assembly import assemble as assembling
from pipeline.builder.assembly.assemble import AssembleError
from pipeline.builder.components import linked
from pipeline.builder.components.results import Built
from pipeline.builder.recipes.catalogue import Recipes
from pipeline.builder.recipes.component import Component
from pipeline.builder.recipes.image import Image
from pipeline.image import archive, inittab, manifest
from pipeline.image.rootfs import Directory, File, Rootfs, RootfsError, Symlink
from pipeline.paths import PROJECT
from tests.support.host_image import KEY

if TYPE_CHECKING:
    from pathlib import Path

# A header and one loadable segment: all that an ELF file needs to be one.
ELF = (
    b"\x7fELF\x02\x01\x01" + bytes(9)
    + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x401000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)
)  # fmt: skip
BOX = ("[", "ash", "busybox", "false", "init", "ls", "reboot", "sh", "ssh", "syslogd")
BEAR = ("dropbear", "ssh", "scp", "dropbearkey")


def component(name: str) -> Component:
    return Component.model_validate_json(
        json.dumps(
            {
                "name": name,
                "version": "1",
                "licence": "MIT",
                "homepage": "https://example.org/",
                "released": "2026-01-02",
                "source": {"file": "x", "size": 1, "sha256": "0" * 64, "unsigned": "a fake one"},
                "location": [{"kind": "https", "url": "https://example.org/x"}],
                "build": {"system": "prebuilt", "architecture": "x86_64"},
                "program": {"file": "x", "applets": "build"},
                "budget": {"text": 1, "file": 1},
                "cpe": f"{name}:{name}",
                "licence_file": [{"file": "COPYING", "sha256": "1" * 64}],
                "include": [
                    {
                        "name": "inner",
                        "version": "3",
                        "licence": "ISC",
                        "licence_file": [{"file": "inner/LICENSE", "sha256": "2" * 64}],
                    }
                ],
            }
        )
    )


IMAGE: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny Box",
    "version": "2026.1",
    "released": "2026-01-03",
    "components": ["busybox", "dropbear"],
    "hostname": "tiny",
    "ssh": ["/sbin/dropbear", "-F", "-w", "-p", "{port}"],
    "inittab": ["::respawn:/sbin/syslogd -n", "::ctrlaltdel:/sbin/reboot"],
    "group": [{"name": "root", "gid": 0}, {"name": "luser", "gid": 1000, "members": ["luser"]}],
    "account": [
        {"name": "root", "uid": 0, "gid": 0, "home": "/root"},
        {"name": "luser", "uid": 1000, "gid": 1000, "home": "/home/luser"},
        {"name": "nobody", "uid": 65534, "gid": 0, "home": "/run", "shell": "/bin/false"},
    ],
}


@pytest.fixture
def built(tmp_path: Path) -> dict[str, Built]:
    found = {}
    for name, program, applets in (
        ("busybox", "busybox", BOX),
        ("dropbear", "dropbearmulti", BEAR),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / program).write_bytes(ELF)
        found[name] = Built(
            name=name,
            digest="d" * 64,
            folder=folder,
            program=program,
            applets=applets,
            linked=("inner", "musl"),
            licences={"COPYING": f"{name} is free\n", "inner/LICENSE": "so is inner"},
        )
    return found


def make(
    built: dict[str, Built], tmp_path: Path, **changes: object
) -> tuple[Rootfs, manifest.Manifest]:
    image = Image.model_validate_json(json.dumps({**IMAGE, **changes}))
    recipes = Recipes(
        root=tmp_path, components={name: component(name) for name in built}, images={}
    )
    made = assembling.assemble(image, recipes, built, architecture="x86_64")
    return made.rootfs, made.manifest


@pytest.fixture
def rootfs(built: dict[str, Built], tmp_path: Path) -> Rootfs:
    return make(built, tmp_path)[0]


@pytest.fixture
def described(built: dict[str, Built], tmp_path: Path) -> manifest.Manifest:
    return make(built, tmp_path)[1]


def text(rootfs: Rootfs, path: str) -> str:
    entry = rootfs.find(path)
    assert isinstance(entry, File)
    return entry.content.decode()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("bin", "cbin"),
        ("sbin", "cbin"),
        ("usr/bin", "../cbin"),
        ("usr/sbin", "../cbin"),
        ("lib", "usr/lib"),
        ("var/run", "../run"),
        ("cbin/sh", "busybox"),
        ("cbin/[", "busybox"),
        ("cbin/dropbear", "dropbearmulti"),
    ],
)
def test_links(rootfs: Rootfs, path: str, target: str) -> None:
    assert rootfs.find(path) == Symlink(path=path, target=target)


@pytest.mark.parametrize(
    ("path", "mode", "uid"),
    [
        ("proc", 0o555, 0),
        ("sys", 0o555, 0),
        ("dev", 0o755, 0),
        ("run", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("var/tmp", 0o1777, 0),
        ("var/log", 0o755, 0),
        ("usr/share/zoneinfo", 0o755, 0),
        ("etc/dropbear", 0o700, 0),
        ("root", 0o700, 0),
        ("home", 0o755, 0),
        ("home/luser", 0o755, 1000),
        ("cbin", 0o755, 0),
    ],
)
def test_directories(rootfs: Rootfs, path: str, mode: int, uid: int) -> None:
    assert rootfs.find(path) == Directory(path=path, mode=mode, uid=uid, gid=uid)


@pytest.mark.parametrize("path", ["proc", "sys", "dev", "run", "usr/share/zoneinfo"])
def test_mount_points_are_empty(rootfs: Rootfs, path: str) -> None:
    assert [entry.path for entry in rootfs if entry.path.startswith(f"{path}/")] == []


def test_there_is_no_key_in_the_image(rootfs: Rootfs) -> None:
    assert [entry.path for entry in rootfs if entry.path.startswith("etc/dropbear/")] == []


def test_nothing_is_setuid(rootfs: Rootfs) -> None:
    assert [entry.path for entry in rootfs if entry.mode & 0o6000] == []


def test_only_the_two_tmp_are_writable_for_all(rootfs: Rootfs) -> None:
    links = (Symlink,)
    writable = [e.path for e in rootfs if e.mode & 0o002 and not isinstance(e, links)]
    assert writable == ["tmp", "var/tmp"]


def test_everything_but_a_home_is_root_s(rootfs: Rootfs) -> None:
    assert [entry.path for entry in rootfs if (entry.uid, entry.gid) != (0, 0)] == ["home/luser"]


def test_programs_are_executable(rootfs: Rootfs) -> None:
    assert rootfs.find("cbin/busybox") == File(path="cbin/busybox", content=ELF, mode=0o755)


def test_the_earlier_component_s_applet_stands(rootfs: Rootfs) -> None:
    assert rootfs.find("cbin/ssh") == Symlink(path="cbin/ssh", target="busybox")


def test_every_link_leads_somewhere(rootfs: Rootfs) -> None:
    links = [entry.path for entry in rootfs if isinstance(entry, Symlink)]
    assert [path for path in links if rootfs.resolve(path) is None] == []


@pytest.mark.parametrize("path", ["/sbin/init", "/bin/sh", "/usr/bin/dropbear", "/usr/sbin/init"])
def test_programs_are_found_where_people_look(rootfs: Rootfs, path: str) -> None:
    assert isinstance(rootfs.resolve(path), File)


def test_shadow_is_root_s_alone_and_has_no_usable_password(rootfs: Rootfs) -> None:
    entry = rootfs.find("etc/shadow")
    assert isinstance(entry, File)
    assert (entry.mode, entry.uid, entry.gid) == (0o600, 0, 0)
    assert {line.split(":")[1] for line in entry.content.decode().splitlines()} == {"*"}


def test_passwd_sends_everybody_to_shadow(rootfs: Rootfs) -> None:
    assert text(rootfs, "etc/passwd") == (
        "root:x:0:0::/root:/bin/sh\n"
        "luser:x:1000:1000::/home/luser:/bin/sh\n"
        "nobody:x:65534:0::/run:/bin/false\n"
    )


def test_shadow_has_the_release_day_as_last_change(rootfs: Rootfs) -> None:
    fields = text(rootfs, "etc/shadow").splitlines()[0].split(":")
    assert (len(fields), fields[2]) == (9, "20456")  # days from 1970-01-01 to 2026-01-03


def test_group(rootfs: Rootfs) -> None:
    assert text(rootfs, "etc/group") == "root:x:0:\nluser:x:1000:luser\n"


def test_shells_are_those_to_log_in_with(rootfs: Rootfs) -> None:
    assert text(rootfs, "etc/shells") == "/bin/ash\n/bin/sh\n"


def test_machine_id_is_empty(rootfs: Rootfs) -> None:
    assert rootfs.find("etc/machine-id") == File(path="etc/machine-id", content=b"")


def test_os_release(rootfs: Rootfs) -> None:
    assert text(rootfs, "etc/os-release") == (
        'NAME="Tiny Box"\nID="nifty"\nPRETTY_NAME="Tiny Box 2026.1"\nVERSION_ID="2026.1"\n'
        'IMAGE_ID="tiny"\nIMAGE_VERSION="2026.1"\n'
    )


def test_hostname_and_hosts(rootfs: Rootfs) -> None:
    assert text(rootfs, "etc/hostname") == "tiny\n"
    assert text(rootfs, "etc/hosts").splitlines()[0] == "127.0.0.1 localhost tiny"


def test_inittab(rootfs: Rootfs) -> None:
    assert list(inittab.processes(text(rootfs, "etc/inittab"))) == [
        ("respawn", ("/sbin/dropbear", "-F", "-w", "-p", "2200")),
        ("respawn", ("/sbin/syslogd", "-n")),
        ("ctrlaltdel", ("/sbin/reboot",)),
    ]


def test_the_port_of_the_recipe(built: dict[str, Built], tmp_path: Path) -> None:
    rootfs, described = make(built, tmp_path, port=3456)
    assert described.ssh.port == 3456
    assert inittab.port_of(text(rootfs, described.ssh.file), described.ssh.place) == 3456


def test_the_manifest_inside_is_the_one_returned(built: dict[str, Built], tmp_path: Path) -> None:
    rootfs, described = make(built, tmp_path)
    assert manifest.read(rootfs, name="image") == described


def test_an_image_survives_its_archive(rootfs: Rootfs) -> None:
    assert archive.read(archive.write_tar(rootfs, mtime=0)) == rootfs


def test_the_manifest_says_what_is_shared_and_what_a_host_needs(
    described: manifest.Manifest,
) -> None:
    assert described.shared == ("cbin",)
    assert described.needs.mount_points == ("proc", "sys", "dev", "run")
    assert described.needs.binds[0].target == "usr/share/zoneinfo"
    assert "etc/hostname" in described.instance


def test_the_manifest_names_who_may_log_in(described: manifest.Manifest) -> None:
    assert [(account.name, account.home) for account in described.ssh.accounts] == [
        ("luser", "home/luser")
    ]


def test_the_manifest_has_each_binary_s_facts(described: manifest.Manifest) -> None:
    assert [(item.path, item.size, item.applets) for item in described.components] == [
        ("cbin/busybox", len(ELF), len(BOX)),
        ("cbin/dropbearmulti", len(ELF), len(BEAR)),
    ]
    assert {item.elf["machine"] for item in described.components} == {"x86_64"}


def test_no_place_of_this_machine_is_in_the_image(rootfs: Rootfs, tmp_path: Path) -> None:
    content = b"".join(entry.content for entry in rootfs if isinstance(entry, File))
    assert [place for place in (PROJECT, tmp_path) if str(place).encode() in content] == []


def test_twice_the_same(built: dict[str, Built], tmp_path: Path) -> None:
    assert make(built, tmp_path) == make(built, tmp_path)


def test_an_account_s_keys_are_its_own(built: dict[str, Built], tmp_path: Path) -> None:
    luser = {**IMAGE["account"][1], "authorized_keys": [KEY.replace(" ", "\t", 1)]}
    rootfs, _described = make(built, tmp_path, account=[IMAGE["account"][0], luser])
    owner = {"uid": 1000, "gid": 1000}
    assert rootfs.find("home/luser/.ssh") == Directory(path="home/luser/.ssh", mode=0o700, **owner)
    assert rootfs.find("home/luser/.ssh/authorized_keys") == File(
        path="home/luser/.ssh/authorized_keys",
        content=f"{KEY}\n".encode(),
        mode=0o600,
        **owner,
    )


def test_extra_files(built: dict[str, Built], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/motd").write_bytes(b"\xff")
    extra = [
        {"path": "opt/deep/x", "content": "é\n", "mode": 0o600, "uid": 5, "gid": 6},
        {"path": "etc/motd", "file": "motd"},
        {"path": "etc/hosts", "content": "mine\n"},
    ]
    rootfs, _described = make(built, tmp_path, file=extra)
    assert rootfs.find("opt/deep/x") == File(
        path="opt/deep/x", content="é\n".encode(), mode=0o600, uid=5, gid=6
    )
    assert rootfs.find("opt/deep") == Directory(path="opt/deep")
    assert rootfs.find("etc/motd") == File(path="etc/motd", content=b"\xff")
    assert text(rootfs, "etc/hosts") == "mine\n"


def test_an_extra_file_does_not_replace_shadow(built: dict[str, Built], tmp_path: Path) -> None:
    with pytest.raises(RootfsError, match="etc/shadow: stands there twice"):
        make(built, tmp_path, file=[{"path": "etc/shadow", "content": "root::::::::\n"}])


def test_a_host_key_in_the_image_is_refused(built: dict[str, Built], tmp_path: Path) -> None:
    key = {"path": "etc/dropbear/dropbear_ed25519_host_key", "content": "x"}
    with pytest.raises(AssembleError, match="a host key is made at deploy"):
        make(built, tmp_path, file=[key])


def test_an_extra_inittab_must_hold_the_port(built: dict[str, Built], tmp_path: Path) -> None:
    with pytest.raises(AssembleError, match="no line with /sbin/dropbear"):
        make(built, tmp_path, file=[{"path": "etc/inittab", "content": "# mine\n"}])


def test_an_extra_inittab_has_the_recipe_s_port(built: dict[str, Built], tmp_path: Path) -> None:
    own = "::respawn:/sbin/dropbear -F -w -p 22\n"
    with pytest.raises(AssembleError, match="the port is 22, the recipe says 2200"):
        make(built, tmp_path, file=[{"path": "etc/inittab", "content": own}])


def test_an_extra_inittab_is_taken(built: dict[str, Built], tmp_path: Path) -> None:
    own = "# mine\n::respawn:/sbin/dropbear -F -w -p 2200 -K 9\n"
    rootfs, _described = make(built, tmp_path, file=[{"path": "etc/inittab", "content": own}])
    assert text(rootfs, "etc/inittab") == own


def test_all_missing_programs_at_once(built: dict[str, Built], tmp_path: Path) -> None:
    built["busybox"] = replace(built["busybox"], applets=("ls",))
    with pytest.raises(AssembleError, match="would not start") as caught:
        make(built, tmp_path)
    missing = {line.split(":")[0] for line in caught.value.problems}
    assert missing == {"/sbin/init", "/bin/sh", "/bin/false", "/sbin/syslogd", "/sbin/reboot"}


def test_an_inittab_line_without_a_process_needs_none(
    built: dict[str, Built], tmp_path: Path
) -> None:
    rootfs, _described = make(built, tmp_path, inittab=["::once:", "::askfirst:-/bin/sh"])
    assert "::once:\n" in text(rootfs, "etc/inittab")


def test_time_zone_is_what_programs_look_at_without_tz(
    built: dict[str, Built], tmp_path: Path
) -> None:
    rootfs = make(built, tmp_path, timezone="Europe/Berlin")[0]
    link = rootfs.find("etc/localtime")
    assert link == Symlink(path="etc/localtime", target="/usr/share/zoneinfo/Europe/Berlin")


def test_time_zone_is_no_path_of_the_users_choice(built: dict[str, Built], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timezone"):
        make(built, tmp_path, timezone="../../../etc/shadow")


def test_console_has_a_line_of_its_own(built: dict[str, Built], tmp_path: Path) -> None:
    full = built["busybox"]
    full = replace(full, applets=tuple(sorted((*full.applets, "getty", "login", "script"))))
    rootfs = make({**built, "busybox": full}, tmp_path, console=True)[0]
    assert "::respawn:/usr/lib/nifty/console\n" in text(rootfs, inittab.PATH)


def test_console_without_its_programs_is_a_problem(built: dict[str, Built], tmp_path: Path) -> None:
    with pytest.raises(AssembleError, match="/bin/getty: no component brings it"):
        make(built, tmp_path, console=True)


def test_the_manifest_names_what_is_linked_in(described: manifest.Manifest) -> None:
    assert described.format == 2
    for component in described.components:
        assert component.cpe == f"{component.name}:{component.name}"
        inner, musl = component.includes
        assert (inner.name, inner.version, inner.licence, inner.cpe) == ("inner", "3", "ISC", None)
        assert inner.licence_files == (
            manifest.LicenceRecord(file="inner/LICENSE", sha256="2" * 64),
        )
        assert (musl.name, musl.version, musl.cpe) == ("musl", "1.2.5", "musl-libc:musl")
        assert musl.licence_files[0].file == "lib/libc/musl/COPYRIGHT"


def test_the_notice_has_each_licence_once(rootfs: Rootfs) -> None:
    told = text(rootfs, manifest.NOTICE)
    head, *texts = re.split(r"(?m)^={78}$\n", told)
    assert head.startswith("Tiny Box 2026.1: who wrote what")
    assert "dropbear 1 (/cbin/dropbearmulti): MIT\n    https://example.org/\n" in head
    assert head.count("    musl 1.2.5: MIT\n") == 2
    assert dict(zip(texts[::2], texts[1::2], strict=True)).keys() == {
        "busybox: COPYING\n",
        "dropbear: COPYING\n",
        "inner: inner/LICENSE\n",
        "musl: lib/libc/musl/COPYRIGHT\n",
    }
    assert told.count("so is inner") == 1
    assert "dropbear is free" in told
    assert "Rich Felker" in told


def test_a_prebuilt_program_asks_for_no_compiler(
    built: dict[str, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking() -> None:
        raise AssertionError

    monkeypatch.setattr(linked, "of_compiler", lacking)
    parts = {name: replace(item, linked=()) for name, item in built.items()}
    described = make(parts, tmp_path)[1]
    assert [[one.name for one in item.includes] for item in described.components] == [["inner"]] * 2
