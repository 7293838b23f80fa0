"""What a host has seen of a source: it does not go back to something older unnoticed.

An attacker who can answer in the server's place cannot sign, but could serve an older, properly
signed release with known holes. One small file for each source and image remembers the newest.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import NiftyError

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 1 << 16
_FORMAT = 1


class OlderError(NiftyError):
    """A release that is older than one that was seen, or too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest *version* of a source's image, and when the newest signature was made."""

    version: str
    signed: datetime


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """What versions are compared by: numbers as numbers, letters after them, `~` before the end.

    A part of the UAPI group's version format: 2026.9 < 2026.11~rc1 < 2026.11 < 2026.11a.
    """
    parts = re.findall(r"[0-9]+|[A-Za-z]+|~", version)
    ranked = []
    for part in parts:
        if part == "~":
            ranked.append((-1, 0, ""))
        elif part.isdecimal():
            ranked.append((2, int(part), ""))
        else:
            ranked.append((1, 0, part))
    return (*ranked, (0, 0, ""))


def place(folder: Path, source: str, image: str) -> Path:
    """The file in *folder* for *image* of *source*, a URL; no image: for the source as a whole."""
    name = hashlib.sha256(f"{source}\n{image}".encode()).hexdigest()[:32]
    return folder / f"{name}.json"


def recall(path: Path) -> Seen | None:
    """What `remember` wrote to *path*; None if nothing was. Raises OlderError if it is damaged."""
    found = _recalled(path)
    return found and found[0]


def recall_image(path: Path) -> str | None:
    """The image in *path*, that of a source as a whole. Raises as `recall`."""
    found = _recalled(path)
    return found and found[1]


def _recalled(path: Path) -> tuple[Seen, str] | None:
    try:
        table = json.loads(files.read_text(path, limit=_LIMIT))
        signed = datetime.fromtimestamp(table["signed"], UTC)
        version, image = str(table["version"]), str(table["image"])
        known = table["format"] == _FORMAT
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise OlderError(
            f"{path}: what was seen of this source cannot be read: {error}",
            hint=f"rm {path}: the next deploy then takes any version it is offered",
        ) from error
    if not known:
        raise OlderError(f"{path}: written by another version of this program", hint=f"rm {path}")
    return Seen(version=version, signed=signed), image


def remember(path: Path, source: str, image: str, seen: Seen) -> None:
    """Keep *seen* in *path*, durably; never something older. Raises OSError."""
    found = _recalled(path)
    if found is not None:
        old, before = found
        seen = Seen(
            version=max(old.version, seen.version, key=order), signed=max(old.signed, seen.signed)
        )
        if (seen, image) == (old, before):
            return
    table = {
        "format": _FORMAT,
        "source": source,
        "image": image,
        "version": seen.version,
        "signed": int(seen.signed.timestamp()),
    }
    files.put(path, (json.dumps(table, sort_keys=True, indent=1) + "\n").encode())


def check(old: Seen | None, new: Seen, *, name: str) -> None:
    """Raise OlderError if *new* of *name* is older than *old*."""
    if old is None:
        return
    if order(new.version) < order(old.version):
        raise OlderError(
            f"{name}: version {new.version}, and {old.version} was seen there before",
            hint="downgrade=yes takes it nevertheless; is the server what it claims to be?",
        )
    if new.signed < old.signed:
        raise OlderError(
            f"{name}: signed at {new.signed:%Y-%m-%d %H:%M} UTC, and a signature of "
            f"{old.signed:%Y-%m-%d %H:%M} UTC was seen there before",
            hint="downgrade=yes takes it nevertheless; is the server what it claims to be?",
        )


def check_fresh(signed: datetime, days: int, now: datetime, *, name: str) -> None:
    """Raise OlderError if *name* was *signed* more than *days* before *now*."""
    age = now - signed
    if age > timedelta(days=days):
        raise OlderError(
            f"{name}: signed {age.days} days ago, fresh={days} allows {days}",
            hint="'doit publish fresh=DAYS' signs anew, or does the server hold that back?",
        )
