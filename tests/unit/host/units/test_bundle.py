"""What systemd-nspawn refuses to an instance: the filter of its bundle."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

from pipeline.host.units import bundle
from pipeline.host.units.nspawn import Nspawn
from pipeline.host.units.unit_text import REFUSED
from pipeline.image.rootfs import File
from pipeline.run import run

# linux/sched.h
KINDS = {
    *("NEWTIME 0x80", "NEWNS 0x20000", "NEWCGROUP 0x2000000", "NEWUTS 0x4000000"),
    *("NEWIPC 0x8000000", "NEWUSER 0x10000000", "NEWPID 0x20000000", "NEWNET 0x40000000"),
}

# In a process that may load filters: what clone3(2) says then, and whether a thread still starts.
CLONE3 = """
import ctypes, threading
from pipeline.host import inside
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
before = libc.syscall(435, 0, 0), ctypes.get_errno()
inside.refuse_clone3()
after = libc.syscall(435, 0, 0), ctypes.get_errno()
threading.Thread(target=lambda: print(before, after)).start()
"""


def refused(call: str) -> set[int]:
    rules = json.loads(bundle.text())["linux"]["seccomp"]["syscalls"]
    ours = [rule for rule in rules if call in rule["names"]]
    assert {rule["action"] for rule in ours} == {"SCMP_ACT_ERRNO"}
    return {
        arg["value"] for rule in ours for arg in rule["args"] if arg["value"] == arg["valueTwo"]
    }


def test_every_kind_of_namespace_is_refused() -> None:
    kinds = {int(kind.split()[1], 16) for kind in KINDS}
    assert refused("unshare") == kinds
    # as a flag of clone(2) the one of time would be part of a signal's number
    assert refused("clone") == kinds - {0x80}


def test_both_runners_refuse_the_same() -> None:
    rules = json.loads(bundle.text())["linux"]["seccomp"]["syscalls"]
    assert set(REFUSED) < set(rules[0]["names"])
    assert "args" not in rules[0]


def test_bundle_says_nothing_else() -> None:
    table = json.loads(bundle.text())
    assert (set(table), set(table["linux"])) == ({"ociVersion", "root", "linux"}, {"seccomp"})


def test_bundle_lies_where_the_unit_looks() -> None:
    made = Nspawn().support(Path("/home"), {})
    assert [one.path for one in made if isinstance(one, File)] == ["nspawn/config.json"]


def test_clone3_is_not_there_after_it_was_refused() -> None:
    told = run([sys.executable, "-c", CLONE3]).stdout
    assert told == f"(-1, {errno.EINVAL}) (-1, {errno.ENOSYS})\n"
