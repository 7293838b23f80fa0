"""Recipes: the real ones load, and every slip is one line that says where and what instead."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.builder.recipes import catalogue
from pipeline.builder.recipes.catalogue import RecipeError, Recipes
from pipeline.builder.recipes.component import Autoconf, DebianBinary, Extract, Kbuild, Make
from pipeline.paths import PROJECT
from tests.support.host_image import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Table = dict[str, Any]
Key = tuple[str | int, ...]

FIX = b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"
BESIDE = {"fix.patch": FIX, "config": b"", "box.tar.sig": b"signature", "key.asc": b"key"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


COMPONENT: Table = {
    "name": "box",
    "version": "1.0",
    "licence": "MIT",
    "homepage": "https://example.org/",
    "released": "2026-01-02",
    "source": {
        "file": "box.tar",
        "size": 10,
        "sha256": "0" * 64,
        "signature": {
            "file": "box.tar.sig",
            "sha256": sha256(BESIDE["box.tar.sig"]),
            "key": "key.asc",
            "fingerprint": "A" * 40,
        },
    },
    "location": [
        {"kind": "https", "url": "https://example.org/box.tar"},
        {"kind": "debian-source", "package": "box", "version": "1", "suite": "sid"},
    ],
    "releases": {"index": "https://example.org/", "pattern": "box-([0-9]+)"},
    "patch": [
        {
            "file": "fix.patch",
            "sha256": sha256(FIX),
            "why": "it was broken",
            "origin": "upstream commit 1",
            "cves": ["CVE-2026-1234"],
        }
    ],
    "build": {
        "system": "kbuild",
        "base": "defconfig",
        "fragment": "config",
        "cflags": ["-Oz"],
        "links": "box.links",
        "binary": "box",
    },
    "program": {"file": "box", "applets": "build"},
    "budget": {"text": 1000, "file": 2000},
}
IMAGE: Table = {
    "name": "tiny",
    "title": "Tiny",
    "version": "1",
    "released": "2026-01-03",
    "components": ["box"],
    "hostname": "tiny",
    "port": 2200,
    "ssh": ["/sbin/dropbear", "-p", "{port}"],
    "inittab": ["::restart:/sbin/init"],
    "group": [{"name": "root", "gid": 0}, {"name": "luser", "gid": 1000, "members": ["luser"]}],
    "account": [
        {"name": "root", "uid": 0, "gid": 0, "home": "/root"},
        {
            "name": "luser",
            "uid": 1000,
            "gid": 1000,
            "home": "/home/luser",
            "shell": "/bin/sh",
            "password": "*",
            "gecos": "",
            "authorized_keys": [KEY],
        },
    ],
    "file": [{"path": "etc/motd", "content": "hello\n", "mode": 420}],
}


def toml(table: Table) -> str:
    """*table* as TOML; every value inline, which TOML allows."""
    return "".join(f"{json.dumps(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def write(folder: Path, component: Table = COMPONENT, image: Table = IMAGE) -> Path:
    """A folder of recipes with these two."""
    root = folder / "recipes"
    beside = root / "components" / "box"
    beside.mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    for name, content in BESIDE.items():
        (beside / name).write_bytes(content)
    (beside / "recipe.toml").write_text(toml(component), "utf-8")
    (root / "images" / "tiny.toml").write_text(toml(image), "utf-8")
    return root


def changed(table: Table, key: Key, value: object) -> Table:
    """*table* with another value at *key*; `...` removes it."""
    table = copy.deepcopy(table)
    place: Any = table
    for part in key[:-1]:
        place = place[part]
    if value is ...:
        del place[key[-1]]
    else:
        place[key[-1]] = value
    return table


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        catalogue.load(root).check()
    return caught.value.problems


def component_problem(tmp_path: Path, key: Key, value: object) -> str:
    """The one problem there is when the component has *value* at *key*."""
    (line,) = problems(write(tmp_path, component=changed(COMPONENT, key, value)))
    start = "recipes/components/box/recipe.toml: "
    assert line.startswith(start)
    return line.removeprefix(start)


def image_problem(tmp_path: Path, key: Key, value: object) -> str:
    (line,) = problems(write(tmp_path, image=changed(IMAGE, key, value)))
    start = "recipes/images/tiny.toml: "
    assert line.startswith(start)
    return line.removeprefix(start)


# --- the real ones -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Recipes:
    return catalogue.load(PROJECT / "recipes")


def test_the_real_recipes_are_there(real: Recipes) -> None:
    assert {"busybox", "dropbear", "busybox-static"} <= set(real.components)
    assert {"nifty", "nifty-prebuilt"} <= set(real.images)


def test_the_default_image_is_compiled_from_pinned_signed_sources(real: Recipes) -> None:
    found = {name: real.components[name] for name in real.images["nifty"].components}
    assert {name: item.version for name, item in found.items()} == {
        "busybox": "1.38.0",
        "dropbear": "2026.94",
        "sftp-server": "10.0p1",
    }
    assert all(item.source.signature for item in found.values())
    assert {type(item.build) for item in found.values()} == {Kbuild, Autoconf, Make}


def test_busybox_carries_the_fixes_of_its_open_cves(real: Recipes) -> None:
    fixed = {cve for item in real.components["busybox"].patch for cve in item.cves}
    assert fixed >= {
        "CVE-2025-46394",
        "CVE-2026-38752",
        "CVE-2026-38753",
        "CVE-2026-38754",
        "CVE-2026-38755",
        "CVE-2023-42366",
        "CVE-2024-58251",
        "CVE-2025-60876",
    }


def test_the_prebuilt_image_needs_no_compiler_for_busybox(real: Recipes) -> None:
    first = real.components[real.images["nifty-prebuilt"].components[0]]
    assert isinstance(first.build, Extract)
    assert isinstance(first.location[0], DebianBinary)


def test_no_account_of_the_default_image_has_a_password(real: Recipes) -> None:
    assert {account.password for account in real.images["nifty"].account} <= {"*", "!"}


def test_no_recipe_names_a_mirror(real: Recipes) -> None:
    hosts = {
        location.url.split("/")[2]
        for item in real.components.values()
        for location in item.location
        if location.kind == "https"
    }
    assert not {host for host in hosts if host.startswith(("deb.", "ftp."))}


# --- a valid one ---------------------------------------------------------------------------------


def test_a_valid_folder_loads(tmp_path: Path) -> None:
    found = catalogue.load(write(tmp_path))
    assert (list(found.components), list(found.images)) == (["box"], ["tiny"])


def test_the_epoch_is_the_release_day_s_midnight(tmp_path: Path) -> None:
    found = catalogue.load(write(tmp_path))
    assert found.components["box"].epoch == 1767312000  # date -ud 2026-01-02 +%s
    assert found.images["tiny"].epoch == 1767312000 + 86400


def test_models_are_frozen(tmp_path: Path) -> None:
    component = catalogue.load(write(tmp_path)).components["box"]
    with pytest.raises(ValueError, match="frozen"):
        setattr(component, "name", "other")  # noqa: B010 (mypy would not let it through)


# --- slips of a component ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (("licence",), ..., "licence: missing"),
        (("source", "size"), ..., "source.size: missing"),
        (("location", 1, "suite"), ..., "location.1.suite: missing"),
        (("build", "binary"), ..., "build.binary: missing"),
        (("licens",), "MIT", "licens: unknown key; did you mean 'licence'?"),
        (("source", "sha"), "x", "source.sha: unknown key; did you mean 'sha256'?"),
        (("source", "signature", "kee"), "x",
         "source.signature.kee: unknown key; did you mean 'key'?"),
        (("location", 0, "ulr"), "x", "location.0.ulr: unknown key; did you mean 'url'?"),
        (("patch", 0, "cve"), [], "patch.0.cve: unknown key; did you mean 'cves'?"),
        (("build", "fragmnt"), "x", "build.fragmnt: unknown key; did you mean 'fragment'?"),
        (("build", "configure"), ["x"],
         "build.configure: unknown key; known: base, binary, cflags, fragment, ldflags, links"),
        (("budget", "zzz"), 1, "budget.zzz: unknown key; known: file, text"),
        (("https",), 1, "https: unknown key; known: accept_nss, budget, build, cpe, homepage"),
        (("build", "autoconf"), 1, "build.autoconf: unknown key; known: base"),
        (("source", "sha256"), "0" * 63,
         f"source.sha256: found '{'0' * 56}... (63 characters), expected 64 hex digits"),
        (("source", "sha256"), "A" * 64, "(64 characters), expected 64 hex digits"),
        (("source", "sha256"), "abc",
         "source.sha256: found 'abc' (3 characters), expected 64 hex digits"),
        (("source", "size"), "10", "source.size: found '10', expected a valid integer"),
        (("source", "size"), 0, "source.size: found 0, expected greater than 0"),
        (("source", "size"), True, "source.size: found True, expected a valid integer"),
        (("source", "file"), "../x", "source.file: found '../x', expected the form"),
        (("source", "signature", "fingerprint"), "AB", "source.signature.fingerprint: found 'AB'"),
        (("source", "signature"), ..., "source: found {"),
        (("source", "unsigned"), "for no good reason", "[source.signature], or 'unsigned'"),
        (("released",), "soon", "released: found 'soon', expected a valid date"),
        (("homepage",), "http://example.org/", "homepage: found 'http://example.org/', expected"),
        (("location",), [], "location: found [], expected"),
        (("location", 0, "kind"), ..., "location.0.kind: missing, expected one of https, debian-"),
        (("location", 0, "kind"), "http",
         "expected one of https, debian-source, debian-binary; did you mean 'https'?"),
        (("location", 0), "x", "location.0: found 'x', expected"),
        (("build", "system"), "kbild",
         "found 'kbild', expected one of kbuild, autoconf, make, prebuilt; did you mean 'kbuild'?"),
        (("build", "system"), ..., "build.system: missing, expected one of kbuild"),
        (("build", "base"), "config", "build.base: found 'config', expected 'defconfig' or 'all"),
        (("build", "links"), "/etc/x", "build.links: found '/etc/x': '/etc/x' is not a clean"),
        (("build", "binary"), "a/../../x", "build.binary: found 'a/../../x': 'a/../../x' is not"),
        (("build", "cflags"), "-Oz", "build.cflags: found '-Oz', expected a valid"),
        (("releases", "pattern"), "(", "releases: found"),
        (("releases", "pattern"), "x", "has 0 groups, expected one: the version"),
        (("patch", 0, "why"), "short", "patch.0.why: found 'short', expected"),
        (("patch", 0, "cves"), ["CVE-1"], "patch.0.cves.0: found 'CVE-1', expected the form"),
        (("patch", 0, "file"), "other.patch",
         "patch.0.file: 'other.patch' in the recipe's folder: No such file"),
        (("patch", 0, "file"), "../../x", "patch.0.file: found '../../x': '../../x' is not"),
        (("patch", 0, "sha256"), "1" * 64,
         f"patch.0.sha256: found {sha256(FIX)} in fix.patch, expected {'1' * 64}"),
        (("source", "signature", "sha256"), "1" * 64, "source.signature.sha256: found "),
        (("source", "signature", "file"), "x.sig", "source.signature.file: 'x.sig' in the recipe"),
        (("source", "signature", "key"), "x.asc", "source.signature.key: no file 'x.asc'"),
        (("cpe",), "cpe:2.3:a:box", "cpe: found 'cpe:2.3:a:box', expected"),
        (("cpe",), "Box Project:box", "cpe: found 'Box Project:box', expected"),
        (("licence_file",), [{"file": "../COPYING", "sha256": "0" * 64}],
         "licence_file.0.file: found '../COPYING': '../COPYING' is not"),
        (("include",), [{"name": "inner", "licence": "ISC"}], "include.0.version: missing"),
        (("build", "fragment"), "absent", "build.fragment: no file 'absent' in the recipe's"),
    ],
)  # fmt: skip
def test_a_slip_in_a_component(tmp_path: Path, key: Key, value: object, told: str) -> None:
    assert told in component_problem(tmp_path, key, value)


def test_another_name_than_the_folder_s(tmp_path: Path) -> None:
    lines = problems(write(tmp_path, component=changed(COMPONENT, ("name",), "bax")))
    assert lines == (
        "recipes/components/box/recipe.toml: name: found 'bax', expected the folder's name 'box'",
    )


def test_a_compiled_component_must_be_signed(tmp_path: Path) -> None:
    source = {"file": "x", "size": 1, "sha256": "0" * 64, "unsigned": "for no good reason"}
    told = component_problem(tmp_path, ("source",), source)
    assert "only a prebuilt component may be unsigned" in told


def test_a_prebuilt_component_cannot_be_patched(tmp_path: Path) -> None:
    told = component_problem(tmp_path, ("build",), {"system": "prebuilt", "architecture": "x86_64"})
    assert "a prebuilt component cannot be patched" in told


def test_a_missing_header_of_autoconf(tmp_path: Path) -> None:
    build = {"system": "autoconf", "headers": ["absent.h"], "binary": "x"}
    told = component_problem(tmp_path, ("build",), build)
    assert told == "build.headers.0: no file 'absent.h' in the recipe's folder"


def test_a_missing_file_of_make(tmp_path: Path) -> None:
    build = {"system": "make", "files": ["absent.mk"], "binary": "x"}
    told = component_problem(tmp_path, ("build",), build)
    assert told == "build.files.0: no file 'absent.mk' in the recipe's folder"


def test_applets_are_from_the_build_or_a_list(tmp_path: Path) -> None:
    assert "program.applets: found 5, expected" in component_problem(
        tmp_path, ("program", "applets"), 5
    )


def test_an_applet_is_a_plain_name(tmp_path: Path) -> None:
    assert "program.applets.0: found '../sh', expected the form" in component_problem(
        tmp_path, ("program", "applets"), ["../sh"]
    )


# --- slips of an image ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (("hostname",), ..., "hostname: missing"),
        (("hostnam",), "x", "hostnam: unknown key; did you mean 'hostname'?"),
        (("account", 0, "passwd"), "*", "account.0.passwd: unknown key; did you mean 'password'?"),
        (("hostname",), "no_underscores", "hostname: found 'no_underscores', expected the form"),
        (("title",), 'a"b', "title: found 'a\"b', expected the form"),
        (("port",), 0, "port: found 0, expected"),
        (("port",), 65536, "port: found 65536, expected"),
        (("components",), [], "components: found [], expected"),
        (("components",), ["bos"], "components.0: no component 'bos'; did you mean 'box'?"),
        (("components",), ["zzz"], "components.0: no component 'zzz'; known: box"),
        (("components",), ["box", "box"], "components: 'box' stands there twice"),
        (("ssh",), ["/sbin/dropbear", "-p", "2200"], "once the word '{port}'"),
        (("ssh",), ["/sbin/dropbear", "-p{port}"], "once the word '{port}'"),
        (("ssh",), ["/sbin/dropbear", "{port}", "{port}"], "once the word '{port}'"),
        (("ssh",), ["{port}"], "once the word '{port}'"),
        (("ssh",), ["/sbin/dropbear -F", "{port}"], "ssh.0: found '/sbin/dropbear -F', expected"),
        (("ssh",), ["/sbin/dropbear", "{port}", "#"], "ssh.2: found '#', expected"),
        (("ssh",), ["/sbin/dropbear", "{port}", "$(id)"], "ssh.2: found '$(id)', expected"),
        (("ssh",), ["/sbin/dropbear", "{port}", ""], "ssh.2: found '', expected"),
        (("inittab",), ["a\nb"], "inittab.0: found 'a\\nb', expected"),
        (("inittab",), ["/bin/x"], "inittab.0: found '/bin/x': expected id:runlevels:"),
        (("inittab",), ["::respwan:/bin/x"], "no action 'respwan'; did you mean 'respawn'?"),
        (("group", 0, "gid"), -1, "group.0.gid: found -1, expected"),
        (("group", 1, "members"), ["nobody"], "group.1.members: no account 'nobody'"),
        (("account", 1, "uid"), 65535, "account.1.uid: found 65535, expected"),
        (("account", 1, "uid"), 0, "account uid: '0' stands there twice"),
        (("account", 1, "gid"), 5, "account.1.gid: no group has 5"),
        (("account", 1, "name"), "Luser", "account.1.name: found 'Luser', expected"),
        (("account", 1, "home"), "home/luser", "account.1.home: found 'home/luser': expected an a"),
        (("account", 1, "home"), "/home/../x", "account.1.home: found '/home/../x': 'home/../x'"),
        (("account", 1, "home"), "/", "account.1.home: found '/': '' is not a clean"),
        (("account", 1, "home"), "/a:b", "account.1.home: found '/a:b', expected"),
        (("account", 1, "shell"), "sh", "account.1.shell: found 'sh': expected an absolute path"),
        (("account", 1, "gecos"), "a:b", "account.1.gecos: found 'a:b', expected"),
        (("account", 1, "authorized_keys"), ["a\nb"], "account.1.authorized_keys.0: found"),
        (
            ("account", 1, "authorized_keys"),
            [f'from="::1" {KEY}'],
            "option 'from': Dropbear does not know it and would refuse the key",
        ),
        (("file", 0, "path"), "/etc/motd", "file.0.path: found '/etc/motd': '/etc/motd' is not"),
        (("file", 0, "mode"), 0o4755, "file.0.mode: found 2541: is 0o4755; expected 0o777 at most"),
        (("file", 0, "mode"), 644, "file.0.mode: found 644: is 0o1204; expected 0o777 at most"),
        (("file", 0, "content"), ..., "file.0: found"),
        (("file", 0, "file"), "motd", "needs exactly one of 'content' and 'file'"),
        (("file", 0), {"path": "x", "file": "absent"}, "file.0.file: no file 'absent'"),
        (("file", 0), {"path": "x", "file": "../../x"}, "file.0.file: found '../../x': '../../x'"),
    ],
)  # fmt: skip
def test_a_slip_in_an_image(tmp_path: Path, key: Key, value: object, told: str) -> None:
    assert told in image_problem(tmp_path, key, value)


def test_another_name_than_the_file_s(tmp_path: Path) -> None:
    assert image_problem(tmp_path, ("name",), "tinny") == (
        "name: found 'tinny', expected the file's name 'tiny'"
    )


def dropin(target: str, libraries: str, **more: object) -> dict[str, object]:
    return {"source": "/usr/bin/p", "target": target, "libraries": libraries, **more}


def test_bind_and_copy_do_not_mix(tmp_path: Path) -> None:
    both = [dropin("a", "bind"), dropin("b", "copy")]
    assert "'bind' beside 'copy'" in image_problem(tmp_path, ("dropin",), both)


def test_drop_in_names_a_package_of_the_recipe(tmp_path: Path) -> None:
    told = image_problem(tmp_path, ("dropin",), [dropin("a", "copy", packages=["gawk"])])
    assert told == "dropin.0.packages: no [[package]] 'gawk'; there are: none"


def test_package_location_is_told_by_its_place_in_the_file(tmp_path: Path) -> None:
    package = {
        "name": "gawk",
        "version": "1",
        "licence": "MIT",
        "source": {"file": "x.deb", "size": 1, "sha256": "0" * 64, "unsigned": "a fake one"},
        "location": [{"kind": "htps", "url": "https://example.org/x.deb"}],
    }
    told = problems(write(tmp_path, image=changed(IMAGE, ("package",), [package])))[0]
    told = told.removeprefix("recipes/images/tiny.toml: ")
    assert told.startswith("package.0.location.0.kind: found 'htps', expected one of")
    assert "did you mean 'https'?" in told


def test_one_file_twice(tmp_path: Path) -> None:
    twice = [{"path": "x", "content": "a"}, {"path": "x", "content": "b"}]
    assert image_problem(tmp_path, ("file",), twice) == "file: 'x' stands there twice"


def test_an_image_without_root(tmp_path: Path) -> None:
    told = image_problem(tmp_path, ("account",), IMAGE["account"][1:])
    assert told == "account: no root with uid 0, which init needs"


# --- passwords -----------------------------------------------------------------------------------

# openssl passwd -6 -salt saltsalt secret
HASH = (
    "$6$saltsalt$"
    "tYXXj1lxIVrFPdVG.aWgUDyNbA9l5cG3PuAJZ9NS7G7D/OrU4RIKK7vYXSNvHhpYPlSsVKzLgqEvSRTkQEzUu/"
)


@pytest.mark.parametrize("password", ["*", "!", HASH, HASH.replace("$6$", "$6$rounds=65536$")])
def test_a_password_that_is_none_or_a_whole_sha_512_hash(tmp_path: Path, password: str) -> None:
    root = write(tmp_path, image=changed(IMAGE, ("account", 1, "password"), password))
    assert catalogue.load(root).images["tiny"].account[1].password == password


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "a plain password"),
        ("secret", "a plain password"),
        ("x", "a plain password"),
        ("!!", "a plain password"),
        ("aaQSqAReePlq6", "a plain password or DES hash"),
        ("$1$salt$qJH7.N4xYta3aEG/dfqo/0", "(MD5) is weaker"),
        ("$5$salt$abc", "(SHA-256) is weaker"),
        ("$2b$10$abc", "unknown crypt scheme $2b$"),
        ("$2y$10$abc", "(bcrypt) is weaker"),
        ("$y$j9T$abc$def", "musl's crypt, which Dropbear asks, knows no yescrypt"),
        ("$gy$j9T$abc$def", "knows no gost-yescrypt"),
        ("$7$abc", "knows no scrypt"),
        ("$9$abc$def", "unknown crypt scheme $9$"),
        ("$", "unknown crypt scheme"),
        ("$6$", "not a whole $6$ hash"),
        ("$6$saltsalt$short", "not a whole $6$ hash"),
        (HASH[:-1], "not a whole $6$ hash"),
        (f"{HASH}x", "not a whole $6$ hash"),
        (f"!{HASH}", "a plain password"),
        (HASH.replace("$6$", "$6$rounds=9$"), "not a whole $6$ hash"),
    ],
)
def test_a_password_that_is_refused_with_the_reason(
    tmp_path: Path, password: str, why: str
) -> None:
    told = image_problem(tmp_path, ("account", 1, "password"), password)
    assert why in told
    assert "openssl passwd -6" in told


@pytest.mark.parametrize("password", ["my secret", "my:secret", "my\nsecret"])
def test_a_password_does_not_reach_the_terminal(tmp_path: Path, password: str) -> None:
    told = image_problem(tmp_path, ("account", 1, "password"), password)
    assert told.startswith("account.1.password: found a value that is not shown")
    assert "secret" not in told


# --- files, and all at once ----------------------------------------------------------------------


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    component = changed(changed(COMPONENT, ("licence",), ...), ("source", "size"), -1)
    image = changed(changed(IMAGE, ("port",), "x"), ("hostname",), ...)
    lines = problems(write(tmp_path, component, image))
    assert len(lines) == 4
    assert {line.split(": ")[0] for line in lines} == {
        "recipes/components/box/recipe.toml",
        "recipes/images/tiny.toml",
    }


def test_an_image_is_not_blamed_for_its_broken_component(tmp_path: Path) -> None:
    lines = problems(write(tmp_path, component=changed(COMPONENT, ("licence",), ...)))
    assert lines == ("recipes/components/box/recipe.toml: licence: missing",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name = ", "not TOML: "),
        (b"name = 'a'\nname = 'b'\n", "not TOML: "),
        (b"\xff", "not UTF-8: byte 0"),
        (b"x = " + b"9" * 5000, "not TOML: "),
        (b"x = " + b"[" * 5000, "not TOML: "),
        (b"", "name: missing"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, told: str) -> None:
    root = write(tmp_path)
    (root / "images/tiny.toml").write_bytes(content)
    lines = problems(root)
    assert lines[0].startswith(f"recipes/images/tiny.toml: {told}")


def test_a_recipe_that_is_a_folder(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "images/other.toml").mkdir()
    (line,) = problems(root)
    assert line == "recipes/images/other.toml: cannot be read: Is a directory"


def test_a_folder_without_recipes(tmp_path: Path) -> None:
    (line,) = problems(tmp_path)
    assert line.endswith("/components: no recipe.toml in any folder")


def test_a_mistake_is_none_of_the_other_images(tmp_path: Path) -> None:
    root = write(tmp_path)
    text = (root / "images" / "tiny.toml").read_text()
    (root / "images" / "mine.toml").write_text(text)  # as copied, the name not yet changed
    (root / "images" / "other.toml").write_text("name = [\n")
    os.mkfifo(root / "images" / "pipe.toml")
    found = catalogue.load(root)
    assert (found.is_whole("tiny"), found.is_whole("mine"), found.is_whole("other")) == (
        *(True, False, False),
    )
    assert [line.split(": ")[:2] for line in found.problems] == [
        ["recipes/images/mine.toml", "name"],
        ["recipes/images/other.toml", "not TOML"],
        ["recipes/images/pipe.toml", "not a regular file"],
    ]
    found.check("components/")


def test_an_image_with_a_broken_component_is_not_whole(tmp_path: Path) -> None:
    found = catalogue.load(write(tmp_path, component=changed(COMPONENT, ("licence",), ...)))
    assert (list(found.images), found.is_whole("tiny")) == (["tiny"], False)
    with pytest.raises(RecipeError, match="licence: missing"):
        found.check("components/")


@pytest.mark.parametrize(("count", "word"), [(1, "1 problem in"), (2, "2 problems in")])
def test_the_summary_counts(tmp_path: Path, count: int, word: str) -> None:
    image = IMAGE
    for key in ["hostname", "title"][:count]:
        image = changed(image, (key,), ...)
    with pytest.raises(RecipeError, match=word):
        catalogue.load(write(tmp_path, image=image)).check()


# --- properties ----------------------------------------------------------------------------------


def keys(table: object, at: Key = ()) -> Iterator[Key]:
    """Every key of *table*, however deep."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table)  # type: ignore[arg-type]
    for key, value in pairs:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from keys(value, (*at, key))


OTHER = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.just(1.5), st.text("ab-/é *", max_size=5),
    st.just([]), st.just({}), st.just(["x"]), st.just({"x": 1}),
).filter(lambda value: value is not None)  # fmt: skip


@pytest.mark.parametrize("kind", ["component", "image"])
@given(choice=st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_is_valid_or_names_its_key(
    kind: str, choice: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = COMPONENT if kind == "component" else IMAGE
    key = choice.draw(st.sampled_from(list(keys(table))))
    what = choice.draw(st.sampled_from(["drop", "change", "add"]))
    if what == "add" and not isinstance(key[-1], str):
        what = "change"
    if what == "add":
        key = (*key[:-1], f"{key[-1]}z")
    table = changed(table, key, ... if what == "drop" else choice.draw(OTHER))
    root = write(tmp_path_factory.mktemp("x"), **{kind: table})
    try:
        catalogue.load(root).check()
    except RecipeError as error:
        told = [line.split(": ", 1)[1] for line in error.problems]
        # a rule about two keys names the table they are in, or the one that must fit
        names = {str(part) for part in key}
        assert all(names & set(re.split(r"[^\w-]+", line)) for line in told)
    else:
        assert what != "add"
