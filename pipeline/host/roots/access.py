"""Who may log in: public keys, checked before anybody is locked out by a bad one."""

from __future__ import annotations

import codecs
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError, ProblemsError
from pipeline.host.state.layout import Layout
from pipeline.image import keyline
from pipeline.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.host.wanted import Wanted


_FILE_LIMIT = 1 << 20


class KeysError(ProblemsError):
    """Lines that are no public keys; their text is not repeated, it may be a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The public key *lines* that open an instance. *fleet*: they are the fleet's own key."""

    lines: tuple[str, ...]
    fleet: bool = False


def keys_in(text: str, *, name: str) -> tuple[str, ...]:
    """The public keys in *text*, one a line, as Dropbear reads them; *name* is for errors.

    Comments and empty lines are left out. Raises KeysError with every bad line, or if no key is
    there.
    """
    if "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File"):
        raise KeysError(
            f"{name} holds a private key:",
            ["a private key stays with its owner: instances get the public half"],
            hint="give the file that ends in .pub (ssh-keygen -y -f FILE prints it)",
        )
    found: dict[str, None] = {}
    problems = []
    for number, line in enumerate(_separated(text), 1):
        if not line or line.startswith("#"):
            continue
        try:
            found[keyline.normal(line)] = None
        except keyline.LineError as error:
            problems.append(f"line {number}: {error.message}")
        if len(found) == keyline.LINES_LIMIT + 1:
            problems.append(f"line {number}: Dropbear reads {keyline.LINES_LIMIT} keys, no more")
            break
    if problems:
        raise KeysError(
            f"{name}: not public keys that open an instance:",
            problems,
            hint="a line is 'ssh-ed25519 AAAA... comment', options may stand before it",
        )
    if not found:
        raise KeysError(f"{name}: no public key in it", [], hint="ssh-keygen -t ed25519 makes one")
    return tuple(found)


def merged(old: Iterable[str], granted: Access) -> tuple[str, ...]:
    """The lines of an instance's authorized_keys: an image's *old* ones, and those *granted*.

    Raises KeysError if Dropbear would not read the last of them.
    """
    lines = tuple(dict.fromkeys([*old, *granted.lines]))
    if len(lines) > keyline.LINES_LIMIT:
        many = f"{len(lines)} keys, with those of the image; Dropbear reads {keyline.LINES_LIMIT}"
        raise KeysError("too many public keys:", [many])
    return lines


def _separated(text: str) -> list[str]:
    """Lines as Dropbear has them: no other control character ends one, as str.splitlines takes."""
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text)]


def decoded(content: bytes) -> str:
    """The text of a file of keys, whatever an editor put before it (a byte order mark)."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        # what `>` of Windows PowerShell writes
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def keys_of_file(path: Path) -> Access:
    """The keys in *path*. Raises KeysError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise KeysError(f"authorized_keys={path}: {error.strerror}", []) from error
    if len(content) > _FILE_LIMIT:
        raise KeysError(f"authorized_keys={path}: more than {_FILE_LIMIT} bytes", [])
    return Access(lines=keys_in(decoded(content), name=f"authorized_keys={path}"))


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
    """The fleet's key, if it was made before; one that is empty was lost to a power failure.

    The public half that is lost is made of the private one. Raises NiftyError if that is no key.
    """
    public = layout.fleet_key.with_suffix(".pub")
    private: bytes | None = None
    try:
        private = files.read(layout.fleet_key, limit=_FILE_LIMIT)
    except FileNotFoundError:
        return None
    except PermissionError:
        pass  # a dry run of somebody else
    except OSError as error:
        raise NiftyError(f"{layout.fleet_key}: {error.strerror}") from error
    if private is not None and not private.strip(b"\0"):
        return None
    if private is not None and b"PRIVATE KEY" not in private:
        raise NiftyError(
            f"{layout.fleet_key}: no private key",
            hint="with it and its .pub moved away deploy makes another; instances that are there "
            "know only the old one",
        )
    try:
        lines = keys_in(files.read_text(public, limit=_FILE_LIMIT), name=str(public))
    except (OSError, KeysError) as error:
        if private is None:
            raise NiftyError(
                f"{public}: cannot be read", hint=f"ssh-keygen -y -f {layout.fleet_key} > {public}"
            ) from error
        lines = (public_of(private),)
    return Access(lines=lines, fleet=True)


def make_fleet_key(layout: Layout) -> Access:
    """A new ed25519 key for whoever typed the command, 0600 and his own; the old one stands."""
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (heavy)

    known = fleet_access(layout)
    if known:
        return known
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    keep_fleet_key(layout, private)
    return Access(lines=(public_of(private),), fleet=True)


def public_of(private: bytes) -> str:
    """The public line of a fleet's private key. Raises NiftyError for what is none."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 (heavy)

    try:
        key = form.load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise NiftyError("the fleet's key is no ed25519 key of OpenSSH without a passphrase")
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return f"{public.decode()} nifty-fleet"


def keep_fleet_key(layout: Layout, private: bytes) -> None:
    """Write the fleet's key for whoever typed the command, 0600 and his own."""
    # the public half first: the private one is what says that there is a key
    files.put(layout.fleet_key.with_suffix(".pub"), f"{public_of(private)}\n".encode())
    user = invoker()
    owner = (user.pw_uid, user.pw_gid) if user and os.geteuid() == 0 else None
    files.put(layout.fleet_key, private, mode=0o600, owner=owner)


def present(layout: Layout) -> Access | None:
    """The keys there are without making any: the user's, else the fleet's."""
    owner = invoker()
    return (keys_of_user(Path(owner.pw_dir)) if owner else None) or fleet_access(layout)


def keys_for(wanted: Wanted) -> Access | None:
    """Who may log in; None if a key for the fleet has to be made. Raises KeysError."""
    if wanted.authorized_keys is not None:
        return keys_of_file(wanted.authorized_keys)
    return present(Layout(wanted.prefix))
