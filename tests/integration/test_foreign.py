"""Images for other architectures: built here, looked at as files, and run under qemu."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess  # noqa: TID251 (its input stays open)
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import elf
from pipeline.builder.components import applets
from pipeline.host.roots import images
from pipeline.host.state.kept import ImageError
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.image.rootfs import File
from pipeline.run import run
from tests.support.foreign import LOGIN, NAME, OTHERS, PORT, Foreign, booted, missing_needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.image.manifest import Manifest
    from pipeline.image.rootfs import Rootfs
    from tests.support.checkouts import Checkout

# the first of each architecture compiles everything for it
pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]
pytest_plugins = ["tests.support.checkouts"]


@pytest.fixture(scope="module", params=OTHERS)
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def packed(checkout: Checkout, architecture: str) -> Path:
    checkout.doit("build", "image=nifty", f"arch={architecture}")
    return checkout.artifacts / f"nifty-{architecture}.tar.zst"


@pytest.fixture(scope="module")
def rootfs(packed: Path) -> Rootfs:
    return archive.read(packed)


@pytest.fixture(scope="module")
def manifest(rootfs: Rootfs) -> Manifest:
    return manifests.read(rootfs, name="this image")


@pytest.fixture(scope="module")
def bootable(architecture: str) -> str:
    if lacking := missing_needs(architecture):
        reason = f"no {architecture} here: it needs {', '.join(lacking)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return architecture


@pytest.fixture(scope="module")
def system(packed: Path, bootable: str) -> Iterator[Foreign]:
    before = registrations()
    with booted(packed, bootable) as running:
        assert registrations() == before
        yield running
    assert not Path(f"/proc/{running.init}").exists()
    assert str(running.client.parent) not in Path("/proc/self/mountinfo").read_text("utf-8")


def registrations() -> list[str]:
    """Those of this host for binfmt_misc; none where its list is not mounted."""
    return sorted(path.name for path in Path("/proc/sys/fs/binfmt_misc").iterdir())


def binaries(rootfs: Rootfs) -> dict[str, bytes]:
    return {
        entry.path: entry.content
        for entry in rootfs
        if isinstance(entry, File) and entry.content.startswith(b"\x7fELF")
    }


# the image as a file


def test_manifest_and_all_binaries_name_the_architecture(
    rootfs: Rootfs, manifest: Manifest, architecture: str
) -> None:
    machines = {path: elf.parse(each, path).machine for path, each in binaries(rootfs).items()}
    programs = ("cbin/busybox", "cbin/dropbearmulti", "cbin/sftp-server")
    assert machines == dict.fromkeys(programs, architecture)
    assert manifest.needs.architecture == architecture


def test_it_is_what_the_image_of_this_machine_is(
    checkout: Checkout, rootfs: Rootfs, architecture: str
) -> None:
    own = archive.read(checkout.artifacts / "nifty-x86_64.tar.zst")
    differing = {*binaries(rootfs), manifests.PATH}
    assert [entry for entry in rootfs if entry.path not in differing] == [
        entry for entry in own if entry.path not in differing
    ]


def test_applets_read_from_the_binary_are_those_of_its_build(
    checkout: Checkout, rootfs: Rootfs, architecture: str
) -> None:
    record = checkout.artifacts / "components" / architecture / "busybox" / "component.json"
    listed = json.loads(record.read_text("utf-8"))["applets"]
    assert len(listed) >= 400
    assert sorted(applets.find(binaries(rootfs)["cbin/busybox"])) == sorted(listed)


def test_inspect_tells_what_readelf_does(
    checkout: Checkout, rootfs: Rootfs, architecture: str, tmp_path: Path
) -> None:
    told = checkout.doit("inspect", f"arch={architecture}", "format=json").stdout
    for binary in json.loads(told)["binaries"]:
        program = tmp_path / Path(binary["path"]).name
        program.write_bytes(binaries(rootfs)[binary["path"]])
        lines = run(["readelf", "--wide", "--segments", program]).stdout.splitlines()
        fields = [line.split() for line in lines if line.startswith("  ")]
        loads = [each for each in fields if each[0] == "LOAD"]
        assert [(each["filesz"], each["memsz"]) for each in binary["elf"]["segments"]] == [
            (int(each[4], 16), int(each[5], 16)) for each in loads
        ]
        (stack,) = (each for each in fields if each[0] == "GNU_STACK")
        assert ("E" in "".join(stack[6:-1])) == binary["elf"]["executable_stack"] is False
        assert [each for each in fields if each[0] in ("INTERP", "DYNAMIC")] == []
        assert (binary["elf"]["linkage"], binary["elf"]["needed"]) == ("static", [])


def test_deploy_refuses_it(packed: Path, architecture: str) -> None:
    machine = os.uname().machine
    with pytest.raises(ImageError, match=f"made for {architecture}, this machine is {machine}"):
        images.load(packed)


# running


def test_its_own_kind_of_program_answers_ssh(
    system: Foreign, architecture: str, record_property: Any
) -> None:
    told = system.ssh("uname -m; id -un; hostname")
    assert told.stdout.split() == [architecture, LOGIN, NAME]
    record_property(f"seconds from start to a login, {architecture}", f"{system.seconds:.1f}")


def test_init_has_started_what_its_table_says(system: Foreign) -> None:
    names = system.ssh("cat /proc/1/comm; pidof dropbear syslogd | wc -w").stdout.split()
    assert names[0] == "init"
    assert int(names[1]) >= 3  # the server, one for this login, the log
    assert f"Pubkey auth succeeded for '{LOGIN}'" in system.ssh("cat /var/log/messages").stdout


def test_it_shows_the_host_key_that_was_made_for_it_and_no_other(system: Foreign) -> None:
    known = system.client / "known"
    right = known.read_text("ascii")
    wrong = right[:-12] + ("A" if right[-12] != "A" else "B") + right[-11:]
    known.write_text(wrong, "ascii")
    try:
        assert system.ssh("true", check=False).returncode == 255
    finally:
        known.write_text(right, "ascii")
    assert system.ssh("true").returncode == 0


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("seq 1000 | awk '{ sum += $1 } END { print sum, atan2(0, -1) }'", "500500 3.14159"),
        ("printf %.3f 2.5; echo $((1 << 40))", "2.5001099511627776"),
        ("date -u -d @4294967296 +%F", "2106-02-07"),
        ("cd /; tar c etc/passwd | gzip | zcat | tar t", "etc/passwd"),
        ("seq 3 | sort -r | tr '\\n' ' '", "3 2 1"),
        ("echo 2^70 | bc", "1180591620717411303424"),
        ("printf nifty | sha256sum", f"{hashlib.sha256(b'nifty').hexdigest()}  -"),
        ("find /etc/dropbear -prune -perm 700 -user root", "/etc/dropbear"),
        ("sh -c 'kill -TERM $$'; echo $?", "143"),
    ],
)
def test_an_applet_computes(system: Foreign, command: str, printed: str) -> None:
    assert system.ssh(command).stdout.strip() == printed


def test_every_applet_of_its_list_is_a_link(system: Foreign, rootfs: Rootfs) -> None:
    listed = set(system.ssh("busybox --list").stdout.split())
    assert listed == set(applets.find(binaries(rootfs)["cbin/busybox"]))


def test_a_terminal_is_given(system: Foreign) -> None:
    words = system.argv("ssh", "-tt", NAME, "tty; exit 7")
    # Dropbear hangs up a terminal as soon as the client's input ends
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.read().split() == [b"/dev/pts/0"]
        assert client.wait(30) == 7


@pytest.mark.parametrize("protocol", ["sftp", "scp", "scp -O"])
def test_a_file_goes_there_and_comes_back(system: Foreign, tmp_path: Path, protocol: str) -> None:
    content = os.urandom(300_000)
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(content)
    if protocol == "sftp":
        batch = f"put {there} file\nget file {back}\n"
        system.call("sftp", "-b", "-", NAME, stdin=batch.encode())
    else:
        program, *options = protocol.split()
        system.call(program, *options, str(there), f"{NAME}:file")
        system.call(program, *options, f"{NAME}:file", str(back))
    assert back.read_bytes() == content
    assert hashlib.sha256(content).hexdigest() in system.ssh("sha256sum file").stdout


def test_its_own_client_logs_in_with_a_key_that_it_made(system: Foreign, architecture: str) -> None:
    script = (
        "dropbearkey -t ed25519 -f key >/dev/null 2>&1;"
        "dropbearkey -y -f key | grep ^ssh- >> .ssh/authorized_keys;"
        f"dbclient -y -p {PORT} -i key {LOGIN}@127.0.0.1 uname -m"
    )
    assert system.ssh(script).stdout.strip() == architecture


def test_it_ends_in_order(packed: Path, bootable: str) -> None:
    with booted(packed, bootable) as running:
        assert running.power_off() == -signal.SIGINT
        told = running.console.read_text("utf-8")
    assert "The system is going down NOW!" in told
    assert "Requesting system poweroff" in told
