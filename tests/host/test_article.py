"""The rest of the article, done for real: telnet, firewall, console, passwords, time zone."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pipeline.host import telnet
from pipeline.host.units.unit_files import DIRECTORY
from pipeline.paths import PROJECT
from pipeline.run import Completed, run
from tests.support.host.variant import Variant, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.host.machine import Machine

pytestmark = pytest.mark.host

PASSWORD = "Correct.Horse.9"
IMAGE = "/root/variant.tar.zst"

# $1 host, $2 port, $3 name, $4 password, then what to type: telnet as RFC 854 has it, refusing all
TELNET = """
import socket, sys, time
host, port, name, password, *lines = sys.argv[1:]
link = socket.create_connection((host, int(port)), 10)
link.settimeout(15)
IAC, DO, DONT, WILL, WONT = 255, 253, 254, 251, 252
said = bytearray()
def until(*ends):
    while not any(said.endswith(end) for end in ends):
        data = link.recv(1)
        if not data:
            return
        if data[0] != IAC:
            said.extend(data)
            continue
        verb, what = link.recv(1)[0], link.recv(1)[0]
        if verb in (DO, WILL):
            link.sendall(bytes((IAC, WONT if verb == DO else DONT, what)))
until(b"login: ")
link.sendall(name.encode() + b"\\r\\n")
until(b"Password: ")
link.sendall(password.encode() + b"\\r\\n")
until(b"$ ", b"incorrect")
for line in lines:
    del said[-2:]
    link.sendall(line.encode() + b"\\r\\n")
    until(b"$ ", b"bye")
print(said.decode(errors="replace"))
"""


def doit(machine: Machine, *words: str, check: bool = True) -> Completed:
    """Run doit inside, as root does on a host."""
    argv = [sys.executable, "-m", "doit", *words]
    return machine.run(argv, cwd=PROJECT, check=check, timeout=120)


@pytest.fixture(scope="module")
def user(machine: Machine) -> Iterator[str]:
    """A user of the machine with a password."""
    machine.run(["useradd", "--create-home", "--shell=/bin/sh", "jdoe"])
    machine.run(["chpasswd"], stdin=f"jdoe:{PASSWORD}\n".encode())
    yield "jdoe"
    machine.run(["userdel", "--force", "--remove", "jdoe"], check=False)


@pytest.fixture
def no_telnet(machine: Machine) -> Iterator[None]:
    """None before and none after."""
    yield
    doit(machine, "telnet", "mode=off")


@pytest.fixture(scope="module")
def instances(machine: Machine) -> Iterator[None]:
    """niftyberlin, with all that this module's image has, and nifty1, both running."""
    hashed = run(["openssl", "passwd", "-6", "-stdin"], stdin=PASSWORD.encode()).stdout.strip()
    recipe: dict[str, object] = {"console": True, "timezone": "Europe/Berlin"}
    machine.put(IMAGE, pack(Variant(recipe, {"password": hashed})))
    try:
        doit(machine, "deploy", f"image={IMAGE}", "name=berlin", "port=2301", "start=yes")
        doit(machine, "deploy", "count=1", "start=yes")
        yield
    finally:
        doit(machine, "undeploy", "yes=yes", check=False)
        machine.run(["rm", "-rf", IMAGE, "/home/.nifty", "/home/cbin"])


def talk(machine: Machine, *lines: str, password: str = PASSWORD) -> str:
    """What a telnet session as jdoe shows."""
    argv = [sys.executable, "-c", TELNET, "127.0.0.1", "12323", "jdoe", password, *lines]
    return machine.run(argv, timeout=60).stdout


MODES = tuple(mode.value for mode in telnet.Mode)


@pytest.mark.parametrize("mode", MODES)
def test_telnet_logs_in_with_the_hosts_password(
    machine: Machine, user: str, no_telnet: None, mode: str
) -> None:
    doit(machine, "telnet", f"mode={mode}")
    assert "uid=1" in (told := talk(machine, "id")), told


def test_telnet_refuses_a_wrong_password(machine: Machine, user: str, no_telnet: None) -> None:
    doit(machine, "telnet", "mode=socket")
    assert "incorrect" in talk(machine, password="wrong")


@pytest.mark.parametrize("mode", MODES)
def test_verify_has_nothing_to_say_of_telnet(machine: Machine, no_telnet: None, mode: str) -> None:
    doit(machine, "telnet", f"mode={mode}")
    names = (
        ["nifty-inetd.service"] if mode != "socket" else [telnet.SOCKET, "nifty-telnet@1.service"]
    )
    told = machine.run(["systemd-analyze", "verify", *names])
    assert (told.stdout, told.stderr) == ("", "")


def test_telnet_is_for_this_host_only_and_warns(machine: Machine, no_telnet: None) -> None:
    told = doit(machine, "telnet", "mode=socket").stderr
    listening = machine.run(["ss", "--listening", "--tcp", "--numeric"]).stdout
    assert "plain text" in told
    assert re.findall(r"(\S+):12323\s", listening) == ["127.0.0.1"]


@pytest.mark.parametrize(("mode", "left"), [("inetd", True), ("forking", False)])
def test_kill_mode_decides_what_stopping_does_to_sessions(
    machine: Machine,
    user: str,
    no_telnet: None,
    mode: str,
    left: bool,  # noqa: FBT001 (a case)
) -> None:
    doit(machine, "telnet", f"mode={mode}")
    # typed inside: the session itself must have begun in the unit before that is stopped
    machine.put("/run/stop", b"#!/bin/sh\nsystemctl stop nifty-inetd.service\n", 0o755)
    script = (
        f"{sys.executable} -c \"$0\" 127.0.0.1 12323 jdoe {PASSWORD} 'exec sleep 300' >&- & "
        "while ! pgrep --uid jdoe --exact sleep; do sleep 0.1; done; /run/stop; "
        "pgrep --uid jdoe --exact sleep; kill $!; wait"
    )
    told = machine.run(["bash", "-c", script, TELNET], check=False, timeout=60).stdout
    assert len(told.split()) == (2 if left else 1)


def test_turning_telnet_off_leaves_nothing(machine: Machine, user: str) -> None:
    doit(machine, "telnet", "mode=inetd")
    doit(machine, "telnet", "mode=off")
    script = f"ls {DIRECTORY} /home/.nifty; pgrep --list-full telnetd; ss -ltn"
    assert not re.search("telnet|inetd|12323", machine.run(["sh", "-c", script]).stdout)


def test_foreign_unit_stays(machine: Machine) -> None:
    path = DIRECTORY / telnet.SOCKET
    machine.put(path, b"[Socket]\nListenStream=7\n")
    try:
        told = doit(machine, "telnet", "mode=socket", check=False)
        kept = machine.get(path)
    finally:
        machine.run(["rm", path])
    assert (told.returncode, kept) == (1, b"[Socket]\nListenStream=7\n")
    assert "not written by nifty" in told.stderr


def test_password_of_the_recipe_opens_ssh(machine: Machine, instances: None) -> None:
    machine.put("/root/ask", f"#!/bin/sh\necho '{PASSWORD}'\n".encode(), 0o755)
    known = "-oUserKnownHostsFile=/home/.nifty/known_hosts"
    argv = ["ssh", "-F", "none", known, "-oPubkeyAuthentication=no", "-oHostKeyAlias=niftyberlin"]
    env = {"SSH_ASKPASS": "/root/ask", "SSH_ASKPASS_REQUIRE": "force"}
    told = machine.run(
        [*argv, "-oStrictHostKeyChecking=no", "-p2301", "luser@127.0.0.1", "id -un"], env=env
    )
    machine.run(["rm", "/root/ask"])
    assert told.stdout == "luser\n"


def test_time_zone_is_the_recipes(machine: Machine, instances: None) -> None:
    script = "date -d @1750000000 '+%F %T %Z'; date -d @1765000000 +%Z"
    told = machine.run(["ssh", "-F", "/home/.nifty/ssh_config", "niftyberlin", script]).stdout
    assert told == "2025-06-15 17:06:40 CEST\nCET\n"


def test_console_of_a_running_instance_is_a_root_shell(machine: Machine, instances: None) -> None:
    told = doit(machine, "console", "name=1", "command=id -un; hostname; cat /proc/1/comm").stdout
    assert told == "root\nnifty1\ninit\n"


def test_console_of_a_stopped_instance_without_getty_is_refused(
    machine: Machine, instances: None
) -> None:
    doit(machine, "stop", "name=1")
    told = doit(machine, "console", "name=1", check=False)
    doit(machine, "start", "name=1")
    assert (told.returncode, "console = true" in told.stderr) == (1, True)


# On a terminal of its own: $0 is the checkout's Python, $1 the password.
CONSOLE = """
import os, pty, select, sys, time
pid, screen = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-m", "doit", "console", "name=berlin"])
seen = b""
def until(*ends):
    global seen
    deadline = time.monotonic() + 40
    while not any(end in seen for end in ends) and time.monotonic() < deadline:
        if select.select([screen], [], [], 1)[0]:
            try:
                seen += os.read(screen, 4096)
            except OSError:
                return
def say(text):
    global seen
    seen = b""
    os.write(screen, text)
until(b"login: ")
say(b"luser\\n")
until(b"Password: ")
say(sys.argv[1].encode() + b"\\n")
until(b"$ ")
say(b"echo $(id -un) on $(hostname), $(tty)\\n")
until(b"/dev/pts/")
print(seen.decode(errors="replace"))
say(b"\\x1d\\x1d\\x1d")
os.waitpid(pid, 0)
"""


def test_getty_rests_where_there_is_no_console(machine: Machine, instances: None) -> None:
    script = "ps -o comm | grep -c sleep; grep -c Scheduling /var/log/messages || true"
    told = machine.run(["ssh", "-F", "/home/.nifty/ssh_config", "niftyberlin", script]).stdout
    assert told == "1\n0\n"


def test_console_of_a_stopped_instance_asks_for_a_login(machine: Machine, instances: None) -> None:
    doit(machine, "stop", "name=berlin")
    argv = [sys.executable, "-c", CONSOLE, PASSWORD]
    told = machine.run(argv, cwd=PROJECT, timeout=90).stdout
    gone = machine.run(["systemctl", "list-units", "--no-legend", "nifty-console-*"]).stdout
    doit(machine, "start", "name=berlin")
    assert "luser on niftyberlin, /dev/pts/" in told
    assert gone == ""


@pytest.fixture
def outside(machine: Machine) -> Iterator[str]:
    """A network namespace beside the machine's, on a cable of its own; 192.0.2.1 is the machine."""
    script = """
        ip netns add outside
        ip link add cable type veth peer name plug netns outside
        ip address add 192.0.2.1/24 dev cable
        ip link set cable up
        ip netns exec outside ip address add 192.0.2.2/24 dev plug
        ip netns exec outside ip link set plug up
    """
    machine.run(["sh", "-ec", textwrap.dedent(script)])
    yield "outside"
    doit(machine, "firewall", "undo=yes")
    machine.run(
        ["sh", "-c", "nft flush ruleset; ip netns delete outside; ip link delete cable"],
        check=False,
    )


def reaches(machine: Machine, outside: str, port: int) -> bool:
    """Whether a connection from outside is taken."""
    code = f"import socket; socket.create_connection(('192.0.2.1', {port}), 1)"
    argv = ["ip", "netns", "exec", outside, sys.executable, "-c", code]
    return machine.run(argv, check=False).returncode == 0


def rules(machine: Machine) -> str:
    return machine.run(["nft", "--stateless", "list", "ruleset"]).stdout


def test_firewall_is_exactly_the_instances_ports(machine: Machine, instances: None) -> None:
    assert "elements = { 2201, 2301 }" in doit(machine, "firewall").stdout


def test_firewall_of_one_instance(machine: Machine, instances: None) -> None:
    assert "elements = { 2301 }" in doit(machine, "firewall", "name=berlin").stdout


def test_applying_twice_changes_nothing(machine: Machine, instances: None, outside: str) -> None:
    doit(machine, "firewall", "apply=yes")
    before = rules(machine)
    doit(machine, "firewall", "apply=yes")
    assert rules(machine) == before
    assert before.count("table inet nifty") == 1


def test_undo_leaves_neither_table_nor_unit(
    machine: Machine, instances: None, outside: str
) -> None:
    doit(machine, "firewall", "apply=yes")
    doit(machine, "firewall", "undo=yes")
    script = f"nft list ruleset; ls {DIRECTORY}/*firewall* /home/.nifty/firewall.nft"
    assert machine.run(["sh", "-c", script], check=False).stdout == ""


def test_rules_come_back_with_the_unit(machine: Machine, instances: None, outside: str) -> None:
    doit(machine, "firewall", "apply=yes")
    before = rules(machine)
    machine.run(["nft", "flush", "ruleset"])
    machine.run(["systemctl", "restart", "nifty-firewall.service"])
    assert rules(machine) == before


DROPPING = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
    }
}
"""


def test_ports_are_open_where_nobody_drops(machine: Machine, instances: None, outside: str) -> None:
    doit(machine, "firewall", "apply=yes")
    assert reaches(machine, outside, 2301)


def test_another_tables_drop_wins_and_the_rule_told_for_it_opens(
    machine: Machine, instances: None, outside: str
) -> None:
    machine.run(["nft", "--file", "-"], stdin=DROPPING.encode())
    told = doit(machine, "firewall", "apply=yes")
    before = reaches(machine, outside, 2301)
    machine.run(["sh", "-ec", told.stdout])
    assert (before, reaches(machine, outside, 2301)) == (False, True)
    assert "inet filter input drops what it does not accept" in told.stderr


# Answers every question with a name that has an escape sequence in it (RFC 1035, 4.1).
RESOLVER = r"""
import socket, threading, subprocess, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
NAME = b"\x06a\x1b[31m\x00"
def serve():
    while True:
        query, peer = server.recvfrom(512)
        head = query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
        end = query.index(b"\0", 12) + 5
        answer = b"\xc0\x0c\x00\x0c\x00\x01\x00\x00\x00\x05" + len(NAME).to_bytes(2, "big") + NAME
        server.sendto(head + query[12:end] + answer, peer)
threading.Thread(target=serve, daemon=True).start()
done = subprocess.run(sys.argv[1:], capture_output=True, timeout=20)
sys.stdout.buffer.write(done.stdout)
"""


def test_names_from_the_network_are_printed_plainly(machine: Machine) -> None:
    busybox = PROJECT / "artifacts" / "components" / os.uname().machine / "busybox" / "busybox"
    argv = [str(busybox), "nslookup", "-type=ptr", "1.2.0.192.in-addr.arpa", "127.0.0.1"]
    told = machine.run([sys.executable, "-c", RESOLVER, *argv]).stdout
    assert "a?[31m" in told
    assert "\x1b" not in told


def test_no_file_is_setuid_or_setgid(machine: Machine, instances: None) -> None:
    found = machine.run(["find", "/home", "-perm", "/6000", "-not", "-type", "l"]).stdout
    assert found == ""
