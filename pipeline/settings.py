"""Command-line variables (`doit build image=nifty`) as one frozen value, checked whole.

Names and values are checked before any task runs; a misspelt one is an error that names the right
one. Reading them from doit is `tasks.actions`' business.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ProblemsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ARCHITECTURES = ("x86_64", "aarch64", "riscv64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


class VariablesError(ProblemsError, UsageError):
    """Variables that do not exist or cannot have the value given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every variable of the command line, with its default."""

    apply: bool = False
    arch: str = "x86_64"
    arches: tuple[str, ...] = ()  # all that arch= names; arch is the first
    authorized_keys: str = ""
    batch: int = 50
    boot: bool = False
    command: str = ""
    count: int | None = None
    counts: tuple[int, ...] = ()
    disk: int | None = None  # bytes, 0 for none
    downgrade: bool = False
    dry: bool = False
    extend: bool = False
    file: str = ""
    firewall: str = ""
    first: int = 1
    fix: bool = False
    fresh: int | None = None  # days
    format: str = "table"
    image: str = "nifty"
    jobs: int = 0
    keep: int = 3
    key: str = ""
    keyring: str = ""
    kind: str = ""
    listen: str = "127.0.0.1"
    live: bool = False
    mode: str = ""
    name: str | None = None
    names: tuple[str, ...] = ()
    need: int = 1
    new: bool = False
    offline: bool = False
    on: tuple[str, ...] = ()
    owner: str = ""
    overwrite: bool = False
    parts: tuple[str, ...] = ()
    port: int | None = None
    prefix: Path = Path("/home")
    python: tuple[str, ...] = ()
    rebuild: bool = False
    rebuilders: str = ""
    rebuilt: tuple[str, ...] = ()
    register: bool = False
    renew: bool = False
    revoke: str = ""
    rollback: bool = False
    rounds: int = 3
    runner: str = ""
    share: str = "cbin"
    source: str = ""  # from= on the command line, a word of Python's own
    start: bool = False
    stop: bool = False
    tag: tuple[str, ...] = ()
    to: str = ""
    trust: str = ""
    undo: bool = False
    unsigned: bool = False
    url: str = ""
    users: str = "private"
    years: int = 5
    yes: bool = False
    given: Mapping[str, str] = field(default_factory=dict, compare=False)  # as they were typed

    @property
    def image_is_path(self) -> bool:
        """Whether image= names a file instead of a recipe."""
        return is_path(self.image)

    @property
    def image_is_url(self) -> bool:
        """Whether image= names an archive or a release on a web server or in a registry."""
        return is_url(self.image)


def is_url(text: str) -> bool:
    """Whether *text* is the URL of an archive or of a release."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def is_path(text: str) -> bool:
    """Whether *text* is the path of an archive, not the name of a recipe."""
    return "/" in text or ".tar" in text


def _image(value: str) -> str:
    if is_url(value):
        # what a shell or a terminal could take for something else is in no URL
        if not re.fullmatch(r"(https?|oci)://[!-~]+", value, re.ASCII) or len(value) > 2000:
            raise ValueError("an https:// or oci:// URL, of printable ASCII")
        return value
    if "\0" not in value and is_path(value):
        return value
    if not re.fullmatch(r"[a-z][a-z0-9-]*", value):
        raise ValueError("the name of a recipe in recipes/images, or the path of an archive")
    return value


def _place(value: str) -> str:
    """Where a directory is served: with a slash at its end."""
    if not re.fullmatch(r"https://[!-~]+", value, re.ASCII) or re.search(r"[?#\"'<>`\\]", value):
        raise ValueError("where the release is served, such as https://example.org/nifty/")
    return value if value.endswith("/") else f"{value}/"


def _truth(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError("yes or no")
    return value == "yes"


def _choice(*allowed: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in allowed:
            close = difflib.get_close_matches(value, allowed, n=1)
            tip = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{' or '.join(allowed)}{tip}")
        return value

    return check


def _several(check: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Values with commas between them, each as *check* wants it."""
    return lambda value: tuple(dict.fromkeys(map(check, value.split(","))))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def check(value: str) -> int:
        # isdecimal alone would take other scripts' digits
        short = value.isascii() and value.isdecimal() and len(value) <= 9
        if not (short and low <= int(value) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return check


def _path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("the path of a file")
    return value


def _owner(value: str) -> str:
    """The user of an OpenPGP key, such as `Nifty <nifty@example.org>`."""
    if not value.strip() or not value.isprintable() or len(value.encode()) > 200:
        raise ValueError("whose key it is, such as 'Nifty <nifty@example.org>'")
    return value


def _fingerprint(value: str) -> str:
    """Of an OpenPGP key, as `gpg` and `doit key` show it."""
    short = value.replace(" ", "").upper()
    if not re.fullmatch(r"[0-9A-F]{40}", short, re.ASCII):
        raise ValueError("the fingerprint of a key, 40 hex digits, as 'doit key keyring=' shows it")
    return short


def _command(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("what a shell is to run, such as 'ls -l'")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IP address such as 127.0.0.1, :: for all") from None


def _name(value: str) -> str:
    """Of one instance, without `nifty`: deploy looks closer at it."""
    if not re.fullmatch(r"(nifty)?[a-z0-9-]*", value):
        raise ValueError("the name of an instance, such as 7 or slick")
    short = value.removeprefix("nifty")
    if short.startswith("-"):
        raise ValueError(f"the name of an instance: a letter or a number first, not {short!r}")
    return short


def _names(value: str) -> tuple[str, ...]:
    return tuple(f"nifty{_name(part)}" for part in value.split(","))


def _size(value: str) -> int:
    """Bytes of `64M`; K, M, G and T are powers of 1024, as systemd's; 0 for `none`."""
    if value == "none":
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,6})([KMGT])", value, re.ASCII)
    size = int(found[1]) << {"K": 10, "M": 20, "G": 30, "T": 40}[found[2]] if found else 0
    if not _LEAST_DISK <= size <= _MOST_DISK:
        raise ValueError("a size such as 64M or 1G, from 1M to 1024T, or none")
    return size


def _tag(value: str) -> str:
    """Of a registry (distribution-spec 1.1, "Pulling manifests")."""
    if not re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", value):
        raise ValueError("a tag: letters, digits, '_', '.', '-', at most 128, such as 2026.11")
    return value


def _directory(value: str) -> Path:
    path = Path(value)
    if "\0" in value or not path.is_absolute() or ".." in path.parts:
        raise ValueError("an absolute path without '..'")
    return path


# As many as there are ports for from 2201 on.
_MOST = 63335
_LEAST_DISK, _MOST_DISK = 1 << 20, 1 << 50

_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "apply": _truth,
    "arch": _several(_choice(*ARCHITECTURES)),
    "authorized_keys": _path,
    "batch": _whole(1, _MOST),
    "boot": _truth,
    "command": _command,
    "count": _whole(1, _MOST),
    "counts": _several(_whole(1, _MOST)),
    "disk": _size,
    "downgrade": _truth,
    "dry": _truth,
    "extend": _truth,
    "file": _path,
    "firewall": _choice("nft", "firewalld"),
    "first": _whole(1, _MOST),
    "fix": _truth,
    "fresh": _whole(1, 3650),
    "format": _choice("table", "json"),
    "from": _path,
    "image": _image,
    "jobs": _whole(1, 1024),
    "keep": _whole(1, 1000),
    "key": _path,
    "keyring": _path,
    "kind": _choice("github", "gitlab"),
    "listen": _address,
    "live": _truth,
    "mode": _choice("inetd", "forking", "socket", "off"),
    "name": _name,
    "names": _names,
    "need": _whole(1, 100),
    "new": _truth,
    "offline": _truth,
    "on": _several(_choice("tmpfs", "ext4", "xfs", "btrfs")),
    "overwrite": _truth,
    "owner": _owner,
    "parts": _several(_choice("build", "image", "deploy", "start")),
    "port": _whole(1, 65535),
    "prefix": _directory,
    "python": _several(_choice(*PYTHONS)),
    "rebuild": _truth,
    "rebuilders": _path,
    "rebuilt": _several(_path),
    "register": _truth,
    "renew": _truth,
    "revoke": _fingerprint,
    "rollback": _truth,
    "rounds": _whole(1, 100),
    "runner": _choice("nspawn", "service"),
    "share": _choice("cbin", "none"),
    "start": _truth,
    "stop": _truth,
    "tag": _several(_tag),
    "to": _path,
    "trust": _choice("first"),
    "undo": _truth,
    "unsigned": _truth,
    "url": _place,
    "users": _choice("private", "host"),
    "years": _whole(1, 30),
    "yes": _truth,
}

# Variables whose names no field can have.
_FIELDS = {"from": "source"}


def parse(variables: Mapping[str, str], *, images: Iterable[str] | None) -> Settings:
    """Settings of *variables*, a name and its text each; *images* are the recipes there are.

    None: there can be none, without a checkout.

    Raises VariablesError with every problem.
    """
    known = sorted(_PARSERS)
    problems = []
    values: dict[str, Any] = {}
    machine = os.uname().machine
    if machine in ARCHITECTURES:
        values["arch"] = machine
    for name, text in variables.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            tip = f"did you mean {close[0]}=?" if close else f"known: {', '.join(known)}"
            problems.append(f"{name}={text}: no such variable; {tip}")
            continue
        try:
            values[_FIELDS.get(name, name)] = _PARSERS[name](text)
        except ValueError as error:
            problems.append(f"{name}={text}: expected {error}")
    if "arch" in variables and not isinstance(values.get("arch"), str | None):
        values |= {"arches": values["arch"], "arch": values["arch"][0]}
    image, there = values.get("image", "nifty"), sorted(images or ())
    if images is None and "image" in values and not is_path(image):
        problems.append(f"image={image}: expected the path of an archive, or the URL of a release")
    elif "image" in values and not is_path(image) and image not in there:
        close = difflib.get_close_matches(image, there, n=1)
        tip = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(there)}"
        problems.append(f"image={image}: no recipes/images/{image}.toml; {tip}")
    if sum(name in values for name in ("name", "names", "count")) > 1:
        problems.append("name=, names= and count= say the same thing in different ways: give one")
    if problems:
        raise VariablesError("these variables cannot be meant so:", problems)
    return Settings(**values, given=dict(variables))
