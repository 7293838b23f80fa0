"""What an image may have bound of this host, and which names can stand in a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import NiftyError
from pipeline.paths import PLAIN

# A manifest comes with its image: it may ask for libraries and data that everybody may read, not
# for /root. /usr/lib as a whole is more: nspawn would find systemd there, and boot that.
_BINDABLE = re.compile(
    r"/usr/share/.+|/usr/libexec/.+|(/usr)?/lib(32|64|x32)|/usr/local/lib(64)?"
    r"|(/usr(/local)?)?/lib(32|64|x32)?/(?!systemd(/systemd)?$).+"
    r"|/etc/ld\.so\.cache|/etc/ssl/certs|/etc/pki/(tls/certs|ca-trust/extracted)(/.+)?"
)


class UnitError(NiftyError):
    """Something that no unit can be written for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host directory that an instance sees read-only at *target*."""

    source: str
    target: str


def refusal(bind: Bind) -> str | None:
    """Why *bind* is not done: it asks for too much of the host, or cannot stand in a unit."""
    for path in (bind.source, bind.target):
        try:
            check_plain(path)
        except UnitError as error:
            return error.message
    if _BINDABLE.fullmatch(bind.source):
        return None
    return f"bind of {bind.source}: refused, an image may ask for libraries and /usr/share"


def check_plain(path: str) -> None:
    """Refuse, with UnitError, a *path* that could mean something else in a unit or an option."""
    if not PLAIN.fullmatch(path) or {".", ".."} & set(PurePosixPath(path).parts):
        raise UnitError(
            f"{path!r}: expected an absolute path whose names hold only letters, digits and ._+-",
            hint="other characters have a meaning of their own in systemd's unit files",
        )
