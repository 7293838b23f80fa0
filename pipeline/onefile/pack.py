"""One file of wheels and modules: the same bytes wherever and by whomever it is made.

Nothing is compressed here, so no library decides a byte: wheels are compressed as they come, and
lie in it as they are pinned.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.onefile import bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.onefile.wheels import Target

# Not pyenv's or a virtual environment's, which a host's root has no use for.
_FIRST_LINE = b"#!/usr/bin/python3\n"
# Older Pythons have to understand this far.
_MAIN = """\
import sys
if sys.version_info < (3, 11):
    sys.exit("error: this file is for Python {python}, and this is Python %d.%d\\n"
             "hint: call it by python{python}" % sys.version_info[:2])
import bootstrap
bootstrap.main()
"""
# The earliest that zip can say; a plain file that all may read (APPNOTE 4.4.6, 4.4.15).
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
# Stays packed: 12 MB for interpreters that have no extension modules.
_LEFT = ("zstandard/_cffi.",)


def name(target: Target) -> str:
    """What the file for *target* is called."""
    return f"nifty-host-{target.stem}.pyz"


def pack(
    target: Target, wheels: Sequence[Path], modules: Mapping[str, Path], version: str
) -> bytes:
    """The file: *wheels* for *target*, and *modules* of nifty *version* by their paths inside."""
    about = f"Metadata-Version: 2.1\nName: nifty\nVersion: {version}\n".encode()
    content = {f"{bootstrap.WHEELS}{path.name}": path.read_bytes() for path in wheels}
    content |= {f"{bootstrap.OURS}{inside}": path.read_bytes() for inside, path in modules.items()}
    content[f"{bootstrap.OURS}nifty-{version}.dist-info/METADATA"] = about
    content["bootstrap.py"] = Path(bootstrap.__file__).read_bytes()
    content["__main__.py"] = _MAIN.format(python=target.python).encode()
    told = {
        "python": target.python,
        "machine": target.machine,
        "digest": _digest(content),
        "left": _LEFT,
    }
    content[bootstrap.ABOUT] = json.dumps(told, indent=1, sort_keys=True).encode()
    return _zipped(content)


def _digest(content: Mapping[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _zipped(content: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    sink.write(_FIRST_LINE)
    with zipfile.ZipFile(sink, "a", zipfile.ZIP_STORED) as made:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = _MODE
            made.writestr(entry, content[name])
    return sink.getvalue()
