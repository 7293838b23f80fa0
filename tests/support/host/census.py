"""What lies below a prefix, as JSON: run inside the test machine.

`python -m tests.support.host.census PREFIX`

Each root is told by its shape (all but what is the instance's own) and by what is its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

OWN = (
    *("etc/hostname", "etc/hosts", "etc/inittab", "etc/machine-id"),
    *("etc/dropbear/dropbear_ed25519_host_key", "home/luser/.ssh/authorized_keys"),
)


def main(prefix: Path) -> None:
    """Print what is there."""
    state = prefix / ".nifty"
    known = {}
    for path in (state / "instances").glob("*.json"):
        table = json.loads(path.read_text())
        known[table["name"]] = table
    table = {
        "roots": {path.name: root(path) for path in prefix.glob("nifty*")},
        "known": known,
        "unfinished": sorted(path.name for path in (state / "new").glob("*")),
        "images": sorted(path.name for path in (prefix / "cbin").glob("*")),
        "stamps": stamps(prefix),
    }
    json.dump(table, sys.stdout)


def root(top: Path) -> dict[str, Any]:
    """One root; what is not there is None."""
    base = top.lstat().st_uid
    shape = hashlib.sha256()
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            facts = path.lstat()
            inside = str(path.relative_to(top))
            owner = (facts.st_uid - base, facts.st_gid - base)
            shape.update(repr((inside, facts.st_mode, owner, content(path, inside))).encode())
    key = (top / OWN[4]).read_bytes() if (top / OWN[4]).exists() else b""
    words = [line.split() for line in text(top / "etc/inittab").splitlines() if "dropbear" in line]
    return {
        "base": base,
        "shape": shape.hexdigest(),
        # string "ssh-ed25519", string seed and public key (dropbear, ed25519.c)
        "host_key": base64.b64encode(key[51:83]).decode(),
        "hostname": text(top / "etc/hostname").strip(),
        "machine_id": text(top / "etc/machine-id").strip(),
        "ports": [int(line[line.index("-p") + 1]) for line in words if "-p" in line],
    }


def content(path: Path, inside: str) -> str:
    """What a file holds, unless that is the instance's own."""
    if path.is_symlink():
        return str(path.readlink())
    if inside in OWN or not stat.S_ISREG(path.lstat().st_mode):
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def text(path: Path) -> str:
    """What *path* says, nothing if it is not there."""
    return path.read_text() if path.exists() else ""


def stamps(prefix: Path) -> dict[str, str]:
    """When and what each path was last, but for what running instances and the locks write."""
    found = {}
    for folder, folders, files in os.walk(prefix):
        for name in (*folders, *files):
            path = Path(folder, name)
            inside = str(path.relative_to(prefix))
            if "/var/log/" in inside or inside in (".nifty/lock", ".nifty/changing", ".nifty/new"):
                continue
            facts = path.lstat()
            found[inside] = f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_mode} {facts.st_size}"
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
