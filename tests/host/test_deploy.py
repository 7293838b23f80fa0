"""`doit deploy` as a user types it: 25 instances that run, and what may be said beside."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.paths import PROJECT
from tests.support.host.guests import Guests
from tests.support.host.user import DOIT, User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

NAMES = tuple(f"nifty{number}" for number in range(1, 26))
PORTS = tuple(range(2201, 2226))


@pytest.fixture(scope="module")
def fleet(machine: Machine) -> Iterator[User]:
    """The user, with `count=25 start=yes` behind him."""
    user = User(machine)
    try:
        user.doit("deploy", "count=25", "start=yes")
        yield user
    finally:
        user.clean()


@pytest.fixture
def inside(fleet: User) -> Guests:
    """To be root in an instance."""
    return Guests(fleet.machine, "nspawn", NAMES)


def key_pair(user: User, path: str) -> str:
    """A new key at *path*; its public line."""
    folder = path.rpartition("/")[0]
    user.shell(f"mkdir -p {folder}; rm -f {path}*; ssh-keygen -q -t ed25519 -N '' -f {path}")
    return user.machine.get(f"{path}.pub").decode()


def test_every_port_from_2201_answers(fleet: User) -> None:
    rows = fleet.status("count=25")
    assert [(row["name"], row["port"], row["answers"]) for row in rows.values()] == [
        (name, port, True) for name, port in zip(NAMES, PORTS, strict=True)
    ]


def test_host_keys_are_the_known_ones(fleet: User) -> None:
    known = fleet.known_keys()
    assert fleet.scanned_keys(PORTS) == {port: known[port] for port in PORTS}


def test_host_keys_are_all_different(fleet: User) -> None:
    keys = fleet.known_keys()
    assert len(set(keys.values())) == len(keys)


def test_login_asks_nothing(fleet: User) -> None:
    told = fleet.ssh("nifty7", "hostname; id -un")
    assert (told.stdout, told.stderr) == ("nifty7\nluser\n", "")


def test_ssh_task_is_a_shell(fleet: User) -> None:
    assert fleet.doit("ssh", "name=7", stdin=b"hostname\n").stdout == "nifty7\n"


def test_root_cannot_log_in_even_with_a_key(fleet: User) -> None:
    root = "/home/nifty7/root/.ssh"
    fleet.shell(f"cp -a /home/nifty7/home/luser/.ssh {root}; chown -R --reference={root}/.. {root}")
    told = fleet.ssh("nifty7", "id", "-l", "root", check=False)
    fleet.shell(f"rm -r {root}")
    assert (told.returncode, told.stdout) == (255, "")
    assert "Permission denied" in told.stderr


@pytest.mark.parametrize("account", ["root", "luser", "nobody"])
@pytest.mark.parametrize("password", ["", "luser", "*"])
def test_no_password_lets_anybody_in(fleet: User, account: str, password: str) -> None:
    fleet.machine.put("/tmp/ask", f"#!/bin/sh\necho '{password}'\n".encode(), 0o755)
    told = fleet.machine.run(
        [
            *(
                "ssh",
                "-F",
                "/home/.nifty/ssh_config",
                "-l",
                account,
                "-o",
                "PubkeyAuthentication=no",
            ),
            *("-o", "NumberOfPasswordPrompts=1", "nifty8", "id"),
        ],
        env={"SSH_ASKPASS": "/tmp/ask", "SSH_ASKPASS_REQUIRE": "force"},
        check=False,
    )
    assert (told.returncode, told.stdout) == (255, "")


def test_fleet_key_is_for_whoever_typed_the_command_only(fleet: User) -> None:
    told = fleet.shell("stat --format='%a %U' /home/.nifty/fleet_key")
    assert told == "600 root\n"


def test_deploying_again_changes_nothing(fleet: User) -> None:
    before = fleet.census().stamps
    fleet.doit("deploy", "count=25", "start=yes")
    assert fleet.census().stamps == before


def test_deploying_again_restarts_nobody(fleet: User, inside: Guests) -> None:
    before = inside.init("nifty1")
    fleet.doit("deploy", "count=25", "start=yes")
    assert inside.init("nifty1") == before


def test_fewer_remove_nothing(fleet: User) -> None:
    before = fleet.census().stamps
    fleet.doit("deploy", "count=3")
    assert fleet.census().stamps == before


def test_more_are_added_to_what_is_there(fleet: User) -> None:
    before = fleet.census().stamps
    told = fleet.doit("deploy", "count=27")
    fleet.doit("undeploy", "names=26,27", "yes=yes")
    after = fleet.census().stamps
    changed = {path.partition("/")[0] for path in before if after.get(path) != before[path]}
    assert (told.stderr.split()[0], changed) == ("2", {".nifty"})


def test_name_has_the_port_given(fleet: User) -> None:
    fleet.doit("deploy", "name=slick", "port=2100", "start=yes")
    port = fleet.status("names=slick")["niftyslick"]["port"]
    assert (fleet.ssh("niftyslick", "hostname").stdout, port) == ("niftyslick\n", 2100)


def test_nameless_instance_is_nifty(fleet: User) -> None:
    fleet.doit("deploy", "name=", "port=2200", "start=yes")
    told = fleet.ssh("nifty", "hostname")
    assert told.stdout == "nifty\n"


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (("count=2", "first=40"), {"nifty40": 2240, "nifty41": 2241}),
        (("count=2", "first=50", "port=5000"), {"nifty50": 5050, "nifty51": 5051}),
        (("names=60,nifty62",), {"nifty60": 2260, "nifty62": 2262}),
    ],
)
def test_numbers_and_ports_can_be_chosen(
    fleet: User, words: tuple[str, ...], ports: dict[str, int]
) -> None:
    fleet.doit("deploy", *words)
    known = fleet.census().known
    assert {name: known[name]["port"] for name in ports} == ports


def test_unshared_instance_runs_from_its_own_programs(fleet: User) -> None:
    fleet.doit("deploy", "names=70", "share=none", "start=yes")
    told = fleet.ssh("nifty70", "grep -c ' /cbin ' /proc/mounts; ls /cbin/busybox")
    own = fleet.shell("ls /home/nifty70/cbin/busybox")
    assert (told.stdout, own) == ("0\n/cbin/busybox\n", "/home/nifty70/cbin/busybox\n")


def test_instance_with_the_hosts_users_answers(fleet: User) -> None:
    fleet.doit("deploy", "names=71", "users=host", "start=yes")
    told = fleet.ssh("nifty71", "hostname; cat /proc/self/uid_map")
    assert told.stdout.split() == ["nifty71", "0", "0", "4294967295"]


def test_registered_instance_is_a_machine(fleet: User) -> None:
    fleet.doit("deploy", "names=72", "register=yes", "start=yes")
    told = fleet.machine.run(["machinectl", "list", "--no-legend"]).stdout
    assert told.split()[0] == "nifty72"


@pytest.mark.parametrize("existed", [False, True])
def test_boot_enables_until_it_is_removed(fleet: User, *, existed: bool) -> None:
    if existed:
        fleet.doit("deploy", "names=73")
    fleet.doit("deploy", "names=73", "boot=yes")
    enabled = fleet.shell("systemctl is-enabled nifty@73.service nifty.target")
    fleet.doit("undeploy", "names=73", "yes=yes")
    left = fleet.shell("ls /etc/systemd/system/nifty.target.wants 2>&-", check=False)
    assert (enabled, left) == ("enabled\nenabled\n", "")


def test_keys_of_a_file_open_the_instance_and_others_do_not(fleet: User) -> None:
    key_pair(fleet, "/root/mine")
    fleet.doit("deploy", "names=74", "authorized_keys=/root/mine.pub", "start=yes")
    only = ("-o", "IdentitiesOnly=yes", "-i")
    mine = fleet.ssh("nifty74", "hostname", *only, "/root/mine")
    fleets = fleet.ssh("nifty74", "hostname", *only, "/home/.nifty/fleet_key", check=False)
    assert (mine.stdout, fleets.returncode) == ("nifty74\n", 255)


# A line for each key, otherwise than ssh-keygen writes it; $k is the type, $b the key.
KEY_LINES = """
cd /root && rm -rf keys && mkdir keys && cd keys
printf '\\357\\273\\277# a byte order mark stands before this\\r\\n' >all
made() { ssh-keygen -q -N '' -C me -f "$1" $2; read -r k b _ <"$1.pub"; }
made tab '-t ed25519'; printf '%s\\t%s me\\n' "$k" "$b" >>all
made blanks '-t ecdsa -b 384'; printf '  %s   %s\\tme\\r\\n' "$k" "$b" >>all
made options '-t rsa -b 2048'; printf 'no-pty,permitopen="h:1" \\t %s %s\\n' "$k" "$b" >>all
made command '-t ed25519'; printf 'Command="echo a, b # c",restrict  %s %s\\n' "$k" "$b" >>all
made long '-t ed25519'; printf '%s %s %02919d\\n' "$k" "$b" 0 >>all
printf '%s %s %02920d\\n' "$k" "$b" 0 >longer
printf 'from="::1" %s %s\\n' "$k" "$b" >>longer
"""


def test_keys_are_written_as_dropbear_reads_them(fleet: User) -> None:
    fleet.shell(KEY_LINES)
    told = fleet.refused("deploy", "names=77", "authorized_keys=/root/keys/longer")
    assert "line 1: longer than the 3000 bytes" in told
    assert "line 2: option 'from': Dropbear does not know it" in told
    fleet.doit("deploy", "names=77", "authorized_keys=/root/keys/all", "start=yes")
    names = ("tab", "blanks", "options", "command", "long")
    only = ("-o", "IdentitiesOnly=yes", "-i")
    found = {
        name: fleet.ssh("nifty77", "hostname", *only, f"/root/keys/{name}", check=False).stdout
        for name in names
    }
    longest = fleet.shell("wc -L </home/nifty77/home/luser/.ssh/authorized_keys")
    fleet.shell("rm -r /root/keys")
    assert found == {**dict.fromkeys(names, "nifty77\n"), "command": "a, b\n"}
    assert longest == "3000\n"


def test_key_of_the_user_is_taken_by_itself(fleet: User) -> None:
    public = key_pair(fleet, "/root/.ssh/id_ed25519")
    fleet.doit("deploy", "names=75", "start=yes")
    told = fleet.ssh("nifty75", "hostname; cat .ssh/authorized_keys")
    fleet.shell("rm -r /root/.ssh")
    assert told.stdout == f"nifty75\n{public}"


def test_bad_keys_are_refused_before_anything(fleet: User) -> None:
    key_pair(fleet, "/root/mine")
    before = fleet.census().stamps
    told = fleet.refused("deploy", "names=76", "authorized_keys=/root/mine")
    assert "a private key stays with its owner" in told
    assert fleet.census().stamps == before


def test_dry_run_tells_and_touches_nothing(fleet: User) -> None:
    before = fleet.census().stamps
    told = fleet.doit("deploy", "count=2", "first=80", "dry=yes").stdout
    assert "create nifty80, port 2280\ncreate nifty81, port 2281\n" in told
    assert fleet.census().stamps == before


def test_image_of_others_makes_do_with_its_tarball(fleet: User) -> None:
    archive = next((PROJECT / "artifacts").glob("nifty-x86_64.tar.xz"))
    fleet.shell(f"cp {archive} /root/theirs.tar.xz")
    told = fleet.doit("deploy", "names=82", "image=/root/theirs.tar.xz", "dry=yes").stdout
    assert "create nifty82, port 2282\n" in told


def test_stop_and_start_of_some(fleet: User) -> None:
    fleet.doit("stop", "names=1,3")
    rows = fleet.status("count=25")
    stopped = [name for name, row in rows.items() if row["state"] == "inactive"]
    fleet.doit("start", "names=1,3")
    assert (stopped, len(fleet.answering("count=25"))) == (["nifty1", "nifty3"], 25)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("deploy", "cuont=3"), "did you mean count=?"),
        (("deploy", "count=3", "share=cbim"), "did you mean 'cbin'?"),
        (("deploy", "count=3", "users=privat"), "did you mean 'private'?"),
        (("deploy", "count=3", "start=true"), "yes or no"),
        (("deploy", "count=0"), "a whole number from 1 to"),
        (("deploy", "name=slick", "port=70000"), "a whole number from 1 to 65535"),
        (("deploy", "name=Slick", "port=2100"), "the name of an instance"),
        (("deploy", "count=2", "prefix=home"), "an absolute path"),
        (("deploy", "count=2", "image=nifti"), "did you mean 'nifty'?"),
        (("deploy", "count=2", "name=slick"), "give one"),
        (("deploy",), "how many?"),
        (("status", "fromat=json"), "did you mean format=?"),
        (("stop", "names=1,99"), "99"),
    ],
)
def test_mistake_names_the_right_word(fleet: User, words: tuple[str, ...], told: str) -> None:
    before = fleet.census().stamps
    assert told in fleet.refused(*words, code=2)
    assert fleet.census().stamps == before


def test_name_needs_a_port(fleet: User) -> None:
    assert "needs port=" in fleet.refused("deploy", "name=portless")


@pytest.mark.parametrize(
    "words",
    [
        ("deploy", "count=1"),
        ("start",),
        ("stop",),
        ("restart",),
        ("upgrade",),
        ("undeploy", "yes=yes"),
        ("doctor", "fix=yes"),
    ],
)
def test_other_users_are_told_to_be_root(fleet: User, words: tuple[str, ...]) -> None:
    # no user at all in this namespace, though he may read what root may
    argv = ["unshare", "--user", DOIT, *words]
    told = fleet.machine.run(argv, cwd=PROJECT, check=False)
    assert (told.returncode, f"{words[0]} needs root" in told.stderr) == (1, True)


def test_second_prefix_is_refused_before_anything(fleet: User) -> None:
    other = User(fleet.machine, "/mnt/other")
    fleet.shell("mkdir -p /mnt/other")
    told = other.refused("deploy", "count=1", "first=90")
    assert "this host already has instances below /home" in told
    assert fleet.shell("ls -A /mnt/other; rmdir /mnt/other") == ""


def test_missing_prefix_is_told_with_what_makes_it(fleet: User) -> None:
    told = User(fleet.machine, "/mnt/nowhere").refused("deploy", "count=1", "first=90")
    assert "mkdir -m 755 /mnt/nowhere" in told


def refused_by_all(fleet: User, *words: str) -> str:
    """What doctor prints for *words*; it, dry=yes and deploy refuse them and touch nothing."""
    before = fleet.census().stamps
    told = fleet.doit("doctor", *words, check=False)
    tried = fleet.refused("deploy", *words, "dry=yes"), fleet.refused("deploy", *words)
    assert (told.returncode, tried[0]) == (1, tried[1])
    assert fleet.census().stamps == before
    return f"{told.stdout}{told.stderr}\n{tried[0]}"


# Writes the default image, asking for a bind of /root as well.
ASKING = """
import io, json, sys, tarfile
from pathlib import Path
from pipeline.image import archive, manifest
from pipeline.image.rootfs import Rootfs
rootfs = archive.read(Path("artifacts/nifty-x86_64.tar.zst"))
known = manifest.read(rootfs, name="it")
asked = manifest.BindRecord(source="/root", target="mnt")
needs = known.needs.model_copy(update={"binds": (asked,)})
bare = Rootfs.of(entry for entry in rootfs if entry.path != manifest.PATH)
made = manifest.add(known.model_copy(update={"needs": needs}), bare)
Path(sys.argv[1]).write_bytes(archive.write_tar(made, mtime=0))
"""


LISTEN = (
    "systemd-run --quiet --unit=listener python3 -c "
    "'import socket, time; s = socket.create_server((\"\", {port})); time.sleep(600)'; "
    "until ss -Hltn sport = {port} | grep -q .; do sleep .1; done"
)


def test_port_that_is_taken_is_told_by_all(fleet: User) -> None:
    fleet.shell(LISTEN.format(port=40092))
    told = refused_by_all(fleet, "count=2", "first=91", "port=40001")
    fleet.shell("systemctl stop listener")
    assert "TCP ports taken: 40092;" in told
    assert "nifty91: port 40092 is taken by user 0 of this host" in told
    assert "TCP ports outgoing: 40092-40093 of 32768-60999" in told


@pytest.mark.parametrize("users", ["private", "host"])
def test_port_for_root_is_told_by_all_and_works_once_it_is_everybodys(
    fleet: User, users: str
) -> None:
    words = ("name=web", "port=443", f"users={users}")
    told = refused_by_all(fleet, *words)
    opened = "sysctl -w net.ipv4.ip_unprivileged_port_start=443"
    assert told.count("TCP ports for root: 443 of 1-1023") == 2
    assert told.count(opened) == 2
    fleet.shell(opened)
    fleet.doit("deploy", *words, "start=yes")
    name = fleet.ssh("niftyweb", "hostname").stdout
    fleet.doit("undeploy", "name=web", "yes=yes")
    fleet.shell("sysctl -w net.ipv4.ip_unprivileged_port_start=1024")
    assert name == "niftyweb\n"


def test_prefix_that_is_a_link_is_told_by_all(fleet: User) -> None:
    fleet.shell("mkdir -p /var/real; ln -sfn /var/real /srv/link")
    other = User(fleet.machine, "/srv/link")
    commands = (
        *(("doctor", "count=1"), ("deploy", "count=1", "dry=yes"), ("deploy", "count=1")),
        *(("status",), ("stop",), ("console", "name=1"), ("ssh", "name=1"), ("telnet", "mode=off")),
    )
    told = {command: other.refused(*command) for command in commands}
    left = fleet.shell("ls -A /var/real; rm /srv/link; rmdir /var/real")
    line = "error: /srv/link: a link (links are not followed)\nhint: prefix=/var/real\n"
    assert (told, left) == (dict.fromkeys(commands, line), "")


def test_doctor_advises_all_that_was_typed(fleet: User) -> None:
    words = ("count=3", "first=94", "runner=service", "users=host", "port=40000")
    told = fleet.doit("doctor", *words, check=False)
    assert f"doit doctor {' '.join(words)} fix=yes (sets " in told.stdout


def test_host_without_instances_has_an_empty_list(fleet: User) -> None:
    other = User(fleet.machine, "/mnt/nowhere")
    assert other.doit("status", "format=json").stdout == "[]\n"
    assert "no instances here" in other.refused("status")


def test_unknown_name_does_not_reach_the_hosts_own_server(fleet: User) -> None:
    told = fleet.ssh("niftyunknown", "hostname", check=False)
    assert (told.returncode, told.stdout) == (255, "")
    assert "there is no such instance: status lists those there are" in told.stderr


def test_user_without_the_fleets_key_is_told_so(fleet: User) -> None:
    words = ["ssh", "-F", "/home/.nifty/ssh_config", "nifty1", "hostname"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
    told = fleet.machine.run(nobody, check=False)
    assert told.returncode == 255
    assert "/home/.nifty/fleet_key" in told.stderr
    assert "password:" not in told.stderr


def test_image_that_asks_for_too_much_is_refused_by_all(fleet: User) -> None:
    fleet.machine.run([sys.executable, "-c", ASKING, "/root/asking.tar"], cwd=PROJECT)
    words = ("name=fz", "port=7777", "image=/root/asking.tar")
    told = refused_by_all(fleet, *words)
    assert told.count("bind of /root: refused, an image may ask for libraries") == 2
    for upgrade in (("image=/root/asking.tar",), ("image=/root/asking.tar", "runner=service")):
        told = fleet.refused("upgrade", "names=1", *upgrade)
        assert "bind of /root: refused" in told
    fleet.shell("rm /root/asking.tar")
    assert fleet.doit("deploy", "count=25", "start=yes").returncode == 0


def test_doctor_is_content(fleet: User) -> None:
    rows = json.loads(fleet.doit("doctor", "count=25", "format=json").stdout)
    assert [row["name"] for row in rows if row["status"] == "fail"] == []


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -o remount,rw /cbin",
        "touch /cbin/new",
        "touch /usr/share/zoneinfo/new",
        "ls /home/nifty2",
        "ls /proc/1/root/../nifty2",
    ],
)
def test_root_inside_keeps_to_itself(inside: Guests, attempt: str) -> None:
    assert inside.root("nifty1", attempt).returncode != 0


def test_root_inside_sees_its_own_processes_only(inside: Guests) -> None:
    told = inside.root("nifty1", "cd /proc; for pid in [0-9]*; do cat $pid/comm; done 2>&-")
    assert set(told.stdout.split()) <= {"init", "dropbear", "syslogd", "sh", "cat"}


def test_root_inside_signals_its_own_processes_only(inside: Guests) -> None:
    before = inside.init("nifty2"), inside.machine.run(["pidof", "systemd-journald"]).stdout
    inside.root("nifty1", "kill -9 -1")
    after = inside.init("nifty2"), inside.machine.run(["pidof", "systemd-journald"]).stdout
    assert after == before
