"""One line of authorized_keys: what sshd(8) allows, written so that Dropbear reads the same.

Dropbear passes over a line that it does not like without a word, and nobody can log in. Its rules
are those of svr-authpubkey.c (checkpubkey_line) and svr-authpubkeyoptions.c of 2026.94.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes of a line without its end, MAX_AUTHKEYS_LINE; lines of a file, MAX_AUTHKEYS_LINE_COUNT.
LINE_LIMIT = 3000
LINES_LIMIT = 300
# What Dropbear takes (signkey.c); it has dropped DSA.
KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Options without a value; Dropbear refuses a key with an option that it does not know.
FLAGS = (
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-x11-forwarding",
    "restrict",
    "verify-required",
)
VALUED = ("command", "permitlisten", "permitopen")
# OpenSSH's others (sshd(8)), for a better message.
_OTHER_OPTIONS = (
    *("agent-forwarding", "cert-authority", "environment", "expiry-time", "from", "no-user-rc"),
    *("port-forwarding", "principals", "pty", "tunnel", "user-rc", "x11-forwarding"),
)
LEAST_RSA_BITS = 1024  # MIN_RSA_KEYLEN
_MOST_RSA_BITS = 16384  # what OpenSSH makes (ssh-keygen.c)
# Bytes of an uncompressed point (RFC 5656, section 3.1).
_POINTS = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
# A value is all up to the next quote: sshd would go on behind \", Dropbear would not.
_OPTION = r'[A-Za-z][A-Za-z0-9-]*(?:="[^"]*")?'


class LineError(NiftyError):
    """Why a line lets nobody in; it says nothing of what the line holds, which may be a secret."""


def normal(line: str) -> str:
    """*line*, without blanks around it, as Dropbear reads it: single blanks up to the comment.

    Raises LineError.
    """
    if "\0" in line:
        raise LineError("holds a NUL byte")
    if line.startswith("----"):
        raise LineError("the format of RFC 4716; convert it with ssh-keygen -i -f FILE")
    options, rest = _split_options(line)
    words = rest.split(None, 2)
    if options:
        _check_options(options)
    if not words:
        raise LineError("no key in it")
    _check_type(words[0])
    if len(words) < 2:
        raise LineError("the key itself is missing")
    _check_blob(words[0], words[1])
    told = " ".join([options, *words] if options else words)
    if len(told.encode()) > LINE_LIMIT:
        raise LineError(f"longer than the {LINE_LIMIT} bytes that Dropbear reads")
    return told


def _split_options(line: str) -> tuple[str, str]:
    """Options, if there are any, and the rest: the first blank outside of quotes divides them."""
    first = line.split(None, 1)[0]
    if _is_type(first):
        return "", line
    found = re.match(r'(?:[^\s"]|"[^"]*")+', line)
    end = found.end() if found else 0
    return line[:end], line[end:]


def _is_type(word: str) -> bool:
    return word in KEY_TYPES or word.startswith(("ssh-", "ecdsa-", "sk-", "x509v3-", "pgp-"))


def _check_type(word: str) -> None:
    if word in KEY_TYPES:
        return
    if word == "ssh-dss":
        why = "DSA keys are not taken any more"
    elif "-cert-v0" in word:
        why = "a certificate, and Dropbear takes plain keys only"
    else:
        why = "unknown key type"
    raise LineError(f"{why}; Dropbear takes {', '.join(KEY_TYPES[:3])} ...")


def _check_options(options: str) -> None:
    if re.search(r'\\"', options):
        raise LineError(
            'has \\" in an option: for Dropbear the value ends there; put the command into a script'
        )
    if not re.fullmatch(rf"{_OPTION}(?:,{_OPTION})*", options):
        raise LineError("starts with neither a key type nor options")
    if "\ufffd" in options:
        raise LineError("has an option that is not UTF-8")
    seen = set()
    for name, value in _options(options):
        if name in _OTHER_OPTIONS:
            raise LineError(f"option {name!r}: Dropbear does not know it and would refuse the key")
        if name not in (*FLAGS, *VALUED):
            raise LineError("starts with neither a key type nor options that Dropbear knows")
        if (value is None) is (name in VALUED):
            needs = 'a value: ="..."' if name in VALUED else "no value"
            raise LineError(f"option {name!r} takes {needs}")
        if name == "command" and name in seen:
            raise LineError(f"option {name!r} twice: Dropbear would refuse the key")
        seen.add(name)
        _check_value(name, value or "")


def _options(options: str) -> Iterator[tuple[str, str | None]]:
    for one in re.findall(_OPTION, options):
        name, _, quoted = one.partition("=")
        yield name.lower(), quoted[1:-1] if quoted else None


def _check_value(name: str, value: str) -> None:
    if name == "permitlisten" and not _is_port(value):
        raise LineError(f"option {name!r}: Dropbear takes a port alone, 0-65535")
    if name == "permitopen":
        # as split_address_port takes it apart (common-runopts.c)
        found = re.fullmatch(r"(?:\[[^\]]+\]|[^\[].*):([^:]*)", value)
        if not found or not (found[1] == "*" or _is_port(found[1])):
            raise LineError(f'option {name!r}: expected "host:port", "[v6]:port" or "host:*"')


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and int(text) <= 65535


def _check_blob(kind: str, text: str) -> None:
    try:
        blob = base64.b64decode(text, validate=True)
        (size,) = struct.unpack_from(">I", blob)
    except (binascii.Error, ValueError, struct.error):
        raise LineError("the key is damaged (not base64, or cut short)") from None
    if blob[4 : 4 + size] != kind.encode():
        raise LineError(f"says {kind}, the key is of another type")
    if kind == "ssh-ed25519" and len(blob) != 51:
        raise LineError(f"the key is damaged: {len(blob)} bytes, expected 51")
    parts = _strings(blob)
    if parts is None:
        raise LineError("the key is cut short")
    if kind == "ssh-rsa":
        _check_rsa(parts[1:])
    elif not _is_curve_key(kind, parts[1:]):
        raise LineError("the key is damaged: not what a key of its type is made of")


def _strings(blob: bytes) -> list[bytes] | None:
    """What *blob* is made of (RFC 4251, section 5); None if it does not end where it should."""
    found = []
    while blob:
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size or len(blob) < 4:
            return None
        found.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return found


def _check_rsa(parts: list[bytes]) -> None:
    if len(parts) != 2:
        raise LineError("the key is cut short")
    exponent, modulus = (int.from_bytes(part, "big") for part in parts)
    bits = modulus.bit_length()
    if not LEAST_RSA_BITS <= bits <= _MOST_RSA_BITS or exponent.bit_length() > 64:
        raise LineError(f"an RSA key of {bits} bits; Dropbear takes {LEAST_RSA_BITS} and more")


def _is_curve_key(kind: str, parts: list[bytes]) -> bool:
    """Keys on elliptic curves: RFC 8709, RFC 5656, and PROTOCOL.u2f of OpenSSH."""
    if kind.startswith("sk-"):
        if len(parts) < 2 or not parts[-1]:
            return False
        parts = parts[:-1]  # the application
    if "ed25519" in kind:
        return len(parts) == 1 and len(parts[0]) == 32
    curve = kind.partition("sha2-")[2].partition("@")[0]
    is_pair = len(parts) == 2 and parts[0] == curve.encode()
    return is_pair and len(parts[1]) == _POINTS[curve] and parts[1][0] == 4
