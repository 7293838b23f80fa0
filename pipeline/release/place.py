"""Where an image is that was not built here: what `image=` and `from=` name.

A web server's directory or a file in it, a registry's repository, or a directory of this host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.errors import UsageError, shown
from pipeline.net import reference
from pipeline.net.reference import SCHEME, is_loopback, normal
from pipeline.release import laid_out
from pipeline.trust import sums

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.net.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an image is: *base*, a directory, ends with a slash; *file* in it, empty for the last.

    A repository is the *base* `oci://HOST/NAME`, and *file* what stands behind that, `:TAG` or
    `@sha256:…`. Of a directory of this host the *base* is an absolute path; *is_layout*: it is an
    OCI image layout. Two ways to write one source have one *base*. *pin* is the archive's sha256,
    or empty.
    """

    base: str
    file: str
    pin: str = ""
    is_layout: bool = False

    @property
    def url(self) -> str:
        """That of the file, or of the directory."""
        return f"{self.base}{self.file}"

    @property
    def is_stored(self) -> bool:
        """Whether it is in a registry, or in a layout as a registry has it."""
        return self.is_layout or self.base.startswith(SCHEME)

    @property
    def is_pinned(self) -> bool:
        """Whether what it names can only be one sequence of bytes."""
        return bool(self.pin) or (self.is_stored and self.file.startswith("@"))

    @property
    def is_chosen(self) -> bool:
        """Whether it names one file, and not what its server says is the newest."""
        return bool(self.file) and not (self.is_stored and self.file.startswith(":"))

    @property
    def reference(self) -> Reference:
        """What is meant in a registry."""
        return reference.parse(self.url)


def place(url: str, *, variable: str = "image") -> Place:
    """What *url*, given as *variable*, means. Raises UsageError if it cannot be used."""
    if url.startswith(SCHEME):
        return _stored(url, variable)
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{variable}={url}: no URL: {error}") from error
    if not host:
        raise UsageError(f"{variable}={url}: no URL: no host")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{variable}=: a password in a URL is seen by every user of this machine",
            hint="a ~/.netrc (mode 0600) holds it",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        told = f"{variable}={url}: {parts.scheme}:, only https: is used"
        raise UsageError(told, hint="https://…")
    if parts.query:
        raise UsageError(f"{variable}={url}: a query cannot be used, files lie beside one another")
    pin = _pin(parts.fragment, f"{variable}={url}")
    before, _slash, last = parts.path.rpartition("/")
    is_file = ".tar" in last
    path = f"{before}/" if is_file or not last else f"{parts.path}/"
    if pin and not is_file:
        raise UsageError(f"{variable}={url}: #sha256= pins an archive, this is a directory")
    file = unquote(last) if is_file else ""
    if file and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", file):
        raise UsageError(f"{variable}={url}: no name of an archive: {shown(file, most=80)}")
    where = normal(parts.netloc, 80 if parts.scheme == "http" else 443)
    return Place(base=f"{parts.scheme}://{where}{path}", file=file, pin=pin)


def directory(path: Path) -> Place:
    """What lies in the directory *path*. Raises UsageError for what is no release of any kind."""
    base = f"{path.absolute()}/"
    if laid_out.is_layout(path):
        return Place(base=base, file="", is_layout=True)
    if (path / sums.NAME).is_file():
        return Place(base=base, file="")
    raise UsageError(
        f"{path}: neither a release ({sums.NAME}) nor an OCI image layout ({laid_out.MARK})"
    )


def _stored(url: str, variable: str) -> Place:
    text, _hash, fragment = url.partition("#")
    meant = reference.parse(text)
    return Place(
        base=meant.source,
        file=f"@{meant.digest}" if meant.digest else f":{meant.tag or 'latest'}",
        pin=_pin(fragment, f"{variable}={url}"),
    )


def _pin(fragment: str, told: str) -> str:
    if not fragment:
        return ""
    found = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
    if found is None:
        raise UsageError(f"{told}: after # expected sha256= and 64 hex digits")
    return found[1]
