"""What `oci://registry.example.org/nifty:2026.11` names: a repository, a tag or digest in it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from pipeline.errors import UsageError, shown

SCHEME = "oci://"
# distribution-spec 1.1, "Pulling manifests"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_LONGEST = 255


class BadReferenceError(UsageError):
    """Text that names no repository, tag or digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A repository (*host*, with its port, and *name*), and what in it; empty: nothing was said."""

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether http is spoken: with this machine itself, which nobody can listen to."""
        return is_loopback(self.host.rpartition(":")[0] if _has_port(self.host) else self.host)

    @property
    def api(self) -> str:
        """The address below which its registry answers for this repository."""
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        return f"{'http' if self.is_plain else 'https'}://{host}/v2/{self.name}"

    @property
    def source(self) -> str:
        """The repository alone, the same however its host was written."""
        return f"{SCHEME}{normal(self.host, 80 if self.is_plain else 443)}/{self.name}"

    def __str__(self) -> str:
        """As it would be typed."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.host}/{self.name}{tag}{'@' if self.digest else ''}{self.digest}"


def parse(text: str) -> Reference:
    """The reference in *text*. Raises BadReferenceError."""
    if not text.startswith(SCHEME):
        raise _wrong(text, f"expected {SCHEME}HOST/NAME")
    rest, at, digest = text.removeprefix(SCHEME).partition("@")
    host, slash, path = rest.partition("/")
    name, colon, tag = path.partition(":")
    if not slash or not _is_host(host):
        raise _wrong(text, "no host with a name behind it, such as registry.example.org/nifty")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise _wrong(text, f"{name!r} is no name: lower case letters, digits, '.', '_', '-', '/'")
    if colon and not is_tag(tag):
        raise _wrong(text, f"{tag!r} is no tag: at most 128 letters, digits, '_', '.' and '-'")
    if at and not is_digest(digest):
        raise _wrong(text, "a digest is sha256: and 64 hexadecimal digits in lower case")
    return Reference(host=host, name=name, tag=tag, digest=digest)


def is_tag(text: str) -> bool:
    """Whether *text* may be a tag."""
    return bool(_TAG.fullmatch(text))


def is_digest(text: str) -> bool:
    """Whether *text* is a digest of the one algorithm that is used here."""
    return bool(_DIGEST.fullmatch(text))


def normal(netloc: str, default: int) -> str:
    """A host and its port as one of the ways to write them: *default* is a port that is not told.

    RFC 3986 sections 6.2.2.1 and 6.2.3.
    """
    host, colon, port = netloc.lower().rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]*", port) or netloc.endswith("]"):
        return netloc.lower()
    return host if port in ("", str(default)) else f"{host}:{int(port)}"


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine without asking anybody."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(host: str) -> bool:
    if not _HOST.fullmatch(host):
        return False
    return not _has_port(host) or 0 < int(host.rpartition(":")[2]) < 1 << 16


def _has_port(host: str) -> bool:
    return bool(re.search(r":[0-9]+\Z", host)) and not host.endswith("]")


def _wrong(text: str, why: str) -> BadReferenceError:
    return BadReferenceError(
        f"{shown(text, most=200)}: {why}", hint=f"such as {SCHEME}registry.example.org/nifty"
    )
