"""What the values of a recipe may look like, each refusal with what to write instead."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from pipeline.image import inittab, keyline
from pipeline.paths import PathError, relative

SHA256 = r"^[0-9a-f]{64}$"


def _clean(name: str) -> str:
    try:
        relative(name)
    except PathError as error:
        raise ValueError(error.message) from None
    return name


# crypt(5): $6$, rounds if not 5000, a salt, 64 bytes in crypt's own base 64
_SHA512_CRYPT = re.compile(r"\$6\$(rounds=[1-9]\d{3,6}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}")
_WEAK = {"1": "MD5", "2": "bcrypt", "2a": "bcrypt", "2y": "bcrypt", "5": "SHA-256"}
_UNKNOWN_TO_MUSL = {"y": "yescrypt", "gy": "gost-yescrypt", "7": "scrypt"}


def _password(text: str) -> str:
    if text in ("*", "!") or _SHA512_CRYPT.fullmatch(text):
        return text
    use = "make a $6$ hash with 'openssl passwd -6', or use '*' (keys only) or '!' (locked)"
    if not text.startswith("$"):
        raise ValueError(f"a plain password or DES hash would be there for all to read; {use}")
    scheme = text.split("$")[1]
    if scheme in _WEAK:
        raise ValueError(f"${scheme}$ ({_WEAK[scheme]}) is weaker than $6$; {use}")
    if scheme in _UNKNOWN_TO_MUSL:
        unknown = _UNKNOWN_TO_MUSL[scheme]
        raise ValueError(f"musl's crypt, which Dropbear asks, knows no {unknown}; {use}")
    if scheme == "6":
        raise ValueError(f"not a whole $6$ hash; {use}")
    raise ValueError(f"unknown crypt scheme ${scheme}$; {use}")


def _absolute(path: str) -> str:
    if path[:1] != "/":
        raise ValueError("expected an absolute path such as /home/luser")
    _clean(path[1:])
    return path


def _mode(mode: int) -> int:
    # 644 without its 0o is 0o1204, and few such slips are within these bits
    if not 0 <= mode <= 0o777:
        raise ValueError(f"is 0o{mode:o}; expected 0o777 at most, in octal such as 0o644")
    return mode


def _init(line: str) -> str:
    problem = inittab.problem(line)
    if problem:
        raise ValueError(problem)
    return line


def _public_key(line: str) -> str:
    try:
        return keyline.normal(line.strip())
    except keyline.LineError as error:
        raise ValueError(error.message) from None


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]{1,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+:~-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}([0-9A-F]{24})?$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z._+~-]{0,127}$")]
RelativePath = Annotated[str, AfterValidator(_clean)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
HttpsUrl = Annotated[str, StringConstraints(pattern=r"^https://[^\s/]+/\S*$")]
Why = Annotated[str, StringConstraints(min_length=10)]
Size = Annotated[int, Field(gt=0, le=1 << 32)]
Mode = Annotated[int, AfterValidator(_mode)]
Id = Annotated[int, Field(ge=0, le=65534)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n\x00]*$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[^\n\r]+$"), AfterValidator(_public_key)]
InitLine = Annotated[Line, AfterValidator(_init)]
# BusyBox init parts words at blanks, hands lines with these characters to a shell, and ends a line
# at a `#`: only plain words stay where the manifest says they are
Word = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f~`!$^&*()=|\\\[\];\"'<>?#]+$")]
# in /etc/passwd, where a colon ends the field
PasswdPath = Annotated[str, StringConstraints(pattern=r"^[^:\n\x00]*$"), AfterValidator(_absolute)]
PasswordHash = Annotated[str, StringConstraints(pattern=r"^[^:\n]*$"), AfterValidator(_password)]

# vendor and product of a CPE 2.3 name, as NVD's dictionary has them: https://nvd.nist.gov/products/cpe
Cpe = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*$")]
Licence = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+() -]+$")]
TimeZone = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}$")
]


class Model(BaseModel):
    """Frozen, strict about types, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
