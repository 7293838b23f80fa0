"""What the files of a release are called: names that systemd-sysupdate, importctl and Incus take.

`nifty_2026.11_x86-64.tar.zst`: image, version, systemd's word for the architecture (not uname's;
systemd.unit(5), ConditionArchitecture=), ending. No version holds a `_`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INDEX = "release.json"
KEYRING, ARMORED = "nifty-keyring.pgp", "nifty-keyring.asc"
# The sums of what lies in folders, and a page for a person.
FOLDERS, PAGE = "folders.sha256", "index.html"
# The signing key as programs want it that read provenance, and how a version's provenance ends.
PUBLIC_KEY = "nifty-provenance.pem"
PROVENANCE = "intoto.json"

WORDS = {"x86_64": "x86-64", "aarch64": "arm64", "riscv64": "riscv64"}
_UNAMES = {word: machine for machine, word in WORDS.items()}
_NAME = re.compile(
    r"(?P<image>[a-z][a-z0-9-]*)_(?P<version>[A-Za-z0-9][A-Za-z0-9.+~-]*)"
    r"(?:_(?P<part>[a-z0-9-]+)\.(?P<ending>[a-z][a-z0-9.]*)|\.(?P<of_all>intoto\.json))",
    re.ASCII,
)


# What a host needs to deploy, as one file for a Python and a machine; of no image's version.
_PROGRAM = re.compile(r"nifty-host-py3[0-9]{1,2}-[a-z0-9_]+\.pyz", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a file's name says; *architecture* in uname's word, empty for what is for all."""

    image: str
    version: str
    architecture: str
    ending: str


def name(image: str, version: str, architecture: str, ending: str) -> str:
    """The name of a file: `name("nifty", "1", "x86_64", "json")` is `nifty_1_x86-64.json`."""
    return f"{image}_{version}_{WORDS.get(architecture, architecture)}.{ending}"


def is_program(name: str) -> bool:
    """Whether *name* is a file's that has the host's half of this program."""
    return _PROGRAM.fullmatch(name) is not None


def parse(text: str) -> Named | None:
    """What the name *text* says; None if it names no version of an image."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    part = found["part"] or ""
    return Named(
        image=found["image"],
        version=found["version"],
        architecture=_UNAMES.get(part, ""),
        ending=found["ending"] or found["of_all"],
    )
