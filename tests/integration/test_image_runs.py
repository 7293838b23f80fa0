"""The finished images, unpacked with plain tar and entered: their programs run."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
import zstandard

from pipeline.image import archive
from pipeline.image.rootfs import File, Symlink
from pipeline.run import Completed, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkouts import Checkout

pytestmark = [
    pytest.mark.usefixtures("checkout"),
    pytest.mark.integration,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs x86_64 programs"),
]
pytest_plugins = ["tests.support.checkouts"]


def unpacked(packed: Path, root: Path) -> Path:
    """The image *packed* in the folder *root*, by the system's own tar."""
    plain = root.with_suffix(".tar")
    content = packed.read_bytes()
    if packed.suffix == ".xz":
        plain.write_bytes(lzma.decompress(content))
    else:
        plain.write_bytes(zstandard.ZstdDecompressor().decompress(content))
    root.mkdir()
    run(["tar", "-xpf", plain, "-C", root])
    return root


@pytest.fixture(scope="module", params=["default", "prebuilt"])
def packed(request: pytest.FixtureRequest) -> Path:
    if request.param == "prebuilt":
        prebuilt: Checkout = request.getfixturevalue("prebuilt")
        return prebuilt.artifacts / "nifty-prebuilt-x86_64.tar.xz"
    checkout: Checkout = request.getfixturevalue("checkout")
    return checkout.artifacts / "nifty-x86_64.tar.zst"


@pytest.fixture(scope="module")
def root(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(packed, tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="module")
def entered(root: Path) -> tuple[str, ...]:
    """The words before a command that run it inside the image."""
    if os.geteuid() == 0:
        return ("chroot", str(root))
    words = ("unshare", "--user", "--map-root-user", f"--root={root}")
    if not shutil.which("unshare") or run([*words, "/bin/true"], check=False).returncode:
        pytest.skip("needs root, or user namespaces that an ordinary user may make")
    return words


def inside(entered: tuple[str, ...], *argv: str) -> Completed:
    return run([*entered, "/bin/env", "-i", "PATH=/bin", *argv], timeout=60)


def test_the_shell_runs(entered: tuple[str, ...]) -> None:
    assert inside(entered, "/bin/sh", "-c", "echo $((6 * 7))").stdout == "42\n"


def test_a_login_shell_reads_the_profile(entered: tuple[str, ...]) -> None:
    told = inside(entered, "/bin/sh", "-lc", "echo $PATH; umask").stdout
    assert told == "/usr/local/bin:/bin\n0022\n"


def test_ls_lists(entered: tuple[str, ...]) -> None:
    listed = inside(entered, "/bin/ls", "/").stdout.split()
    assert {"bin", "cbin", "dev", "etc", "home", "proc", "root", "run", "tmp", "usr"} <= set(listed)


def test_awk_computes(entered: tuple[str, ...]) -> None:
    told = inside(entered, "/bin/awk", "-F:", '$1 == "luser" { print $3, $7 }', "/etc/passwd")
    assert told.stdout == "1000 /bin/sh\n"


def test_dropbearkey_makes_a_host_key(entered: tuple[str, ...], root: Path) -> None:
    told = inside(entered, "/bin/dropbearkey", "-t", "ed25519", "-f", "/tmp/key")
    assert "ssh-ed25519 " in told.stdout
    content = (root / "tmp" / "key").read_bytes()
    assert content.startswith(b"\x00\x00\x00\x0bssh-ed25519")


def test_syslogd_tells_its_options(entered: tuple[str, ...]) -> None:
    told = inside(entered, "/sbin/syslogd", "--help")
    assert "Usage: syslogd" in told.stdout + told.stderr


def test_dropbear_is_there_and_takes_w(entered: tuple[str, ...]) -> None:
    told = inside(entered, "/usr/sbin/dropbear", "-h")
    assert "\n-w\t" in told.stdout + told.stderr


def test_busybox_has_the_applets_that_were_read_from_it(
    entered: tuple[str, ...], root: Path
) -> None:
    links = {
        path.name
        for path in (root / "cbin").iterdir()
        if path.is_symlink() and os.readlink(path) == "busybox"  # noqa: PTH115 (text is compared)
    }
    assert set(inside(entered, "/bin/busybox", "--list").stdout.split()) - {"busybox"} == links


def test_os_release_says_what_this_is(entered: tuple[str, ...]) -> None:
    script = '. /etc/os-release; echo "$ID/$NAME/$IMAGE_ID"; test "$VERSION_ID" = "$IMAGE_VERSION"'
    told = inside(entered, "/bin/sh", "-c", script).stdout.strip()
    assert told in ("nifty/Nifty BusyBox/nifty", "nifty/Nifty BusyBox/nifty-prebuilt")


def test_every_link_leads_to_a_file_or_folder_inside(packed: Path) -> None:
    rootfs = archive.read(packed)
    links = [entry.path for entry in rootfs if isinstance(entry, Symlink)]
    assert [path for path in links if rootfs.resolve(path) is None] == []
    programs = [path for path in links if path.startswith("cbin/")]
    assert all(isinstance(rootfs.resolve(path), File) for path in programs)


def test_no_file_runs_with_another_users_rights(root: Path) -> None:
    special = stat.S_ISUID | stat.S_ISGID
    assert [path for path in root.rglob("*") if path.lstat().st_mode & special] == []


def test_nobody_has_a_password_and_shadow_is_closed(root: Path) -> None:
    shadow = root / "etc" / "shadow"
    assert stat.S_IMODE(shadow.stat().st_mode) == 0o600
    if os.access(shadow, os.R_OK):
        hashes = [line.split(":")[1] for line in shadow.read_text().splitlines()]
        assert set(hashes) <= {"*", "!"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's tar gives files away")
def test_home_belongs_to_its_user(root: Path) -> None:
    home = (root / "home" / "luser").stat()
    assert (home.st_uid, home.st_gid) == (1000, 1000)


def test_temporary_folders_are_for_all(root: Path) -> None:
    modes = [stat.S_IMODE((root / path).stat().st_mode) for path in ("tmp", "var/tmp")]
    assert modes == [0o1777, 0o1777]
