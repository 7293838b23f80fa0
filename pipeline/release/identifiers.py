"""The names by which scanners know what is in an image: package URLs and CPE.

https://github.com/package-url/purl-spec, NIST IR 7695 (CPE 2.3).
"""

from __future__ import annotations

import re
from urllib.parse import quote

# OpenSSH's 10.0p1 is version 10.0, update p1 in NVD's names
_PORTABLE = re.compile(r"(?P<version>\d+(\.\d+)+)(?P<update>p\d+)")
# what CPE wants quoted by a backslash in a formatted string (NIST IR 7695, 6.2.2.1)
_QUOTED = re.compile(r"([^A-Za-z0-9._-])")


def purl(name: str, version: str, **qualifiers: str) -> str:
    """`pkg:generic/NAME@VERSION`, with *qualifiers* in the order that purl-spec wants: sorted."""
    rest = "&".join(f"{key}={quote(text, safe=':/')}" for key, text in sorted(qualifiers.items()))
    return f"pkg:generic/{quote(name, safe='')}@{quote(version, safe=':')}" + f"?{rest}" * bool(
        rest
    )


def cpe(product: str, version: str) -> str:
    """The CPE 2.3 name of *product* (`vendor:product`) at *version*."""
    match = _PORTABLE.fullmatch(version)
    number, update = (match["version"], match["update"]) if match else (version, "*")
    quoted = _QUOTED.sub(r"\\\1", number)
    return f"cpe:2.3:a:{product}:{quoted}:{update}:*:*:*:*:*:*"


def oci(name: str, digest: str) -> str:
    """The image in a registry by its manifest's *digest*, `sha256:` and 64 hexadecimal digits."""
    return f"pkg:oci/{quote(name, safe='')}@{quote(digest, safe='')}"
