"""What systemd-nspawn refuses to an instance by its arguments: an OCI bundle of a filter alone.

User namespaces cannot be told apart from processes by the name of a system call, which is all that
--system-call-filter= takes; and sysctls of the instance's own namespaces can be set from outside
only once it runs. nspawn does load a filter with arguments, before it executes init, from the file
config.json of a bundle (systemd-nspawn(1), --oci-bundle=; the format is the OCI Runtime
Specification's). It takes the place of nspawn's own, and of .nspawn files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.host.units.unit_text import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "nspawn"
FILE = f"{FOLDER}/config.json"

# linux/sched.h: CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET. The mask of
# clone(2) has no room for CLONE_NEWTIME (time_namespaces(7)).
_KINDS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_NEW_TIME = 0x80

# The unit refuses these, too; the console of a stopped instance has no unit around it. By name:
# @clock, @cpu-emulation, @debug, @module, @obsolete, @raw-io and @swap of systemd.
_GROUPS = (
    *("adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "modify_ldt", "lookup_dcookie"),
    *("pidfd_getfd", "ptrace", "delete_module", "finit_module", "init_module", "_sysctl", "sysfs"),
    *("uselib", "ustat", "ioperm", "iopl", "swapoff", "swapon"),
)


def text() -> str:
    """The content of FILE: everything is as the command line says, and this filter.

    clone3(2) has its flags in memory, where no filter looks; the unit's RestrictNamespaces= and
    the console refuse it as a kernel before 5.3 does (ENOSYS), and programs take clone(2) instead.
    """
    names = (*REFUSED, *_GROUPS, "setns", "sync")
    filters = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO"}, *_namespaces()],
    }
    # no root of this name is there: --directory= says which it is
    table = {"ociVersion": "1.0.0", "root": {"path": "none"}, "linux": {"seccomp": filters}}
    return json.dumps(table, indent=1) + "\n"


def _namespaces() -> Iterator[dict[str, object]]:
    """Refusals of every kind of namespace; the flags are the first argument of either call."""
    calls = [("clone", kind) for kind in _KINDS] + [("unshare", kind) for kind in _KINDS]
    for call, kind in (*calls, ("unshare", _NEW_TIME)):
        flag = {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": kind, "valueTwo": kind}
        yield {"names": [call], "action": "SCMP_ACT_ERRNO", "args": [flag]}
