"""Who may log in: public keys, checked before anybody is locked out by a bad one."""

from __future__ import annotations

import base64
import binascii
import os
import pwd
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError, ProblemsError
from pipeline.host.state import write_atomic
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.host.layout import Layout

# What Dropbear takes (dropbear, signkey.c); it has dropped DSA.
KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Dropbear refuses a key whose options it does not know (dropbear, svr-authpubkeyoptions.c).
OPTIONS = (
    "command",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-x11-forwarding",
    "permitlisten",
    "permitopen",
    "restrict",
    "verify-required",
)
# OpenSSH's others (sshd(8)), for a better message.
_OTHER_OPTIONS = (
    *("agent-forwarding", "cert-authority", "environment", "expiry-time", "from", "no-user-rc"),
    *("port-forwarding", "principals", "pty", "tunnel", "user-rc", "x11-forwarding"),
)
_LINE_LIMIT = 4200  # bytes; Dropbear passes over a longer one in silence
_FILE_LIMIT = 1 << 20


class KeysError(ProblemsError):
    """Lines that are no public keys; their text is not repeated, it may be a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The public key *lines* that open an instance. *fleet*: they are the fleet's own key."""

    lines: tuple[str, ...]
    fleet: bool = False


def keys_in(text: str, *, name: str) -> tuple[str, ...]:
    """The public keys in *text*, one a line; comments and empty lines left out. *name* for errors.

    Raises KeysError with every bad line, or if no key is there.
    """
    lines = [line.strip() for line in text.splitlines()]
    if "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File"):
        raise KeysError(
            f"{name} holds a private key:",
            ["a private key stays with its owner: instances get the public half"],
            hint="give the file that ends in .pub (ssh-keygen -y -f FILE prints it)",
        )
    wanted = [(number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#"]
    problems = [f"line {number}: {why}" for number, line in wanted if (why := _line_problem(line))]
    if problems:
        raise KeysError(
            f"{name}: not public keys:",
            problems,
            hint="a line is 'ssh-ed25519 AAAA... comment', options may stand before it",
        )
    if not wanted:
        raise KeysError(f"{name}: no public key in it", [], hint="ssh-keygen -t ed25519 makes one")
    return tuple(dict.fromkeys(line for _number, line in wanted))


def _line_problem(line: str) -> str | None:
    if len(line.encode()) > _LINE_LIMIT:
        return f"longer than the {_LINE_LIMIT} bytes that Dropbear reads"
    if "---" in line[:5]:
        return "the format of RFC 4716; convert it with ssh-keygen -i -f FILE"
    words = line.split(None, 2)
    if words[0] not in KEY_TYPES and words[0] != "ssh-dss":
        options, rest = _split_options(line)
        if (why := _options_problem(options)) is not None:
            return why
        words = rest.split(None, 2)
    if not words:
        return "no key in it"
    if words[0] not in KEY_TYPES:
        known = "DSA keys are not taken any more" if words[0] == "ssh-dss" else "unknown key type"
        return f"{known}; Dropbear takes {', '.join(KEY_TYPES[:3])} ..."
    if len(words) < 2:
        return "the key itself is missing"
    return _blob_problem(words[0], words[1])


def _split_options(line: str) -> tuple[str, str]:
    """Options and the rest: the first blank outside of quotes divides them (sshd(8))."""
    found = re.match(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', line)
    end = found.end() if found else 0
    return line[:end], line[end:]


def _options_problem(options: str) -> str | None:
    one = r'[A-Za-z][A-Za-z0-9-]*(?:="(?:[^"\\]|\\.)*")?'
    if not re.fullmatch(rf"{one}(?:,{one})*", options):
        return "starts with neither a key type nor options"
    names = re.sub(r'="(?:[^"\\]|\\.)*"', "", options).lower().split(",")
    for name in names:
        if name in _OTHER_OPTIONS:
            return f"option {name!r}: Dropbear does not know it and would refuse the key"
        if name not in OPTIONS:
            return "starts with neither a key type nor options that Dropbear knows"
    return None


def _blob_problem(kind: str, text: str) -> str | None:
    try:
        blob = base64.b64decode(text, validate=True)
        (size,) = struct.unpack_from(">I", blob)
    except (binascii.Error, struct.error):
        return "the key is damaged (not base64, or cut short)"
    if blob[4 : 4 + size] != kind.encode():
        return f"says {kind}, the key is of another type"
    if kind == "ssh-ed25519" and len(blob) != 51:
        return f"the key is damaged: {len(blob)} bytes, expected 51"
    return None if len(blob) > 4 + size + 4 else "the key is cut short"


def keys_of_file(path: Path) -> Access:
    """The keys in *path*. Raises KeysError."""
    try:
        text = path.read_bytes()[: _FILE_LIMIT + 1]
    except OSError as error:
        raise KeysError(f"authorized_keys={path}: {error.strerror}", []) from error
    if len(text) > _FILE_LIMIT:
        raise KeysError(f"authorized_keys={path}: more than {_FILE_LIMIT} bytes", [])
    return Access(lines=keys_in(text.decode(errors="replace"), name=f"authorized_keys={path}"))


def invoker() -> pwd.struct_passwd | None:
    """Who typed the command: the user before sudo, or the current one."""
    name = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    try:
        return pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def keys_of_user(home: Path) -> Access | None:
    """The keys in .ssh/id_*.pub below *home*, or None; bad ones are told and not used."""
    lines: list[str] = []
    for path in sorted((home / ".ssh").glob("id_*.pub")):
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                continue
            lines += keys_of_file(path).lines
        except (KeysError, OSError) as error:
            say(f"not used: {error}")
    return Access(lines=tuple(dict.fromkeys(lines))) if lines else None


def fleet_access(layout: Layout) -> Access | None:
    """The fleet's key, if it was made before."""
    public = layout.fleet_key.with_suffix(".pub")
    if not layout.fleet_key.is_file():
        return None
    try:
        return Access(lines=keys_in(public.read_text(), name=str(public)), fleet=True)
    except OSError as error:
        raise NiftyError(
            f"{public}: {error.strerror}",
            hint=f"ssh-keygen -y -f {layout.fleet_key} > {public}",
        ) from error


def make_fleet_key(layout: Layout) -> Access:
    """A new ed25519 key for whoever typed the command, 0600 and his own; the old one stands."""
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (heavy)

    known = fleet_access(layout)
    if known:
        return known
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    line = f"{public.decode()} nifty-fleet"
    # the public half first: the private one is what says that there is a key
    write_atomic(layout, layout.fleet_key.with_suffix(".pub"), f"{line}\n".encode())
    write_atomic(layout, layout.fleet_key, private, mode=0o600)
    owner = invoker()
    if owner and os.geteuid() == 0:
        os.chown(layout.fleet_key, owner.pw_uid, owner.pw_gid)
    return Access(lines=(line,), fleet=True)


def present(layout: Layout) -> Access | None:
    """The keys there are without making any: the user's, else the fleet's."""
    owner = invoker()
    return (keys_of_user(Path(owner.pw_dir)) if owner else None) or fleet_access(layout)
