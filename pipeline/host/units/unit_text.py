"""What the units of all runners have in common: when they start, what bounds and confines them."""

from __future__ import annotations

# `{needed}` is a file without which the instance is not deployed, or has another runner.
HEAD = """\
[Unit]
Description=nifty instance nifty%i
AssertPathExists={prefix}/.nifty/units/%i.{needed}
RequiresMountsFor={prefix}
PartOf=nifty.target
After=network.target
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
"""

# For each user of an instance, and for each process: what holds without a control group. NPROC
# counts by user of each user namespace (setrlimit(2)). TasksMax and MemoryMax bound all of an
# instance, where the kernel has both controllers.
MOST_PROCESSES = 128
MOST_DATA = "512M"

BOUNDS = """\
MemoryAccounting=yes
TasksAccounting=yes
TasksMax=256
MemoryMax=1G
OOMPolicy=continue
OOMScoreAdjust=200
LimitNOFILE=4096
LimitCORE=0
KeyringMode=private
DevicePolicy=closed
DeviceAllow=char-pts rw
NoNewPrivileges=yes
"""

# What no program of an instance needs, beyond what CONFINED refuses by groups, and systemd-nspawn's
# own filter would refuse, too. open_by_handle_at(2): files outside the root have handles as well.
REFUSED = (
    *("acct", "add_key", "bpf", "fanotify_init", "fanotify_mark", "io_uring_setup", "kcmp"),
    *("kexec_file_load", "kexec_load", "keyctl", "nfsservctl", "open_by_handle_at"),
    *("perf_event_open", "process_vm_readv", "process_vm_writev", "quotactl", "request_key"),
    *("syslog", "userfaultfd", "vhangup"),
)

# sync: init calls it twice when it stops, and each call goes through all file systems of the host,
# of which every instance has five. What is written is safe without it: the root is the host's.
CONFINED = """\
LockPersonality=yes
ProtectClock=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=cgroup ipc mnt pid uts user
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @swap sync
SystemCallErrorNumber=EPERM

[Install]
WantedBy=nifty.target
"""
