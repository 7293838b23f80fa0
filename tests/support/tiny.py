"""Recipes of two programs of a few lines: everything is real but their size."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from typing import TYPE_CHECKING

import pysequoia

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """\
#include <stdio.h>
#include "config.h"
int main(void)
{
\tputs(GREETING " number one");
\treturn 0;
}
"""
# a pause, for tests that need to be there while it compiles
MAKEFILE = """\
WAIT = 0
{name}: {name}.c
\tsleep $(WAIT)
\tcc -Oz -static -s -o $(CURDIR)/{name} {name}.c
"""
CONFIG = '#define GREETING "hello"\n'
PATCH = """\
--- a/{name}.c
+++ b/{name}.c
@@ -2,5 +2,5 @@
 #include "config.h"
 int main(void)
 {{
-\tputs(GREETING " number one");
+\tputs(GREETING " number two");
 \treturn 0;
"""
RECIPE = """\
name = "{name}"
version = "1"
licence = "MIT"
homepage = "https://example.org/"
released = 2026-01-01

[source]
file = "{name}-1.tar"
size = {size}
sha256 = "{sha256}"

[source.signature]
file = "{name}-1.tar.asc"
sha256 = "{signature}"
key = "key.asc"
fingerprint = "{fingerprint}"

[[location]]
kind = "https"
url = "https://example.invalid/{name}-1.tar"

[[patch]]
file = "number.patch"
sha256 = "{patch}"
why = "so that there is a patch"
origin = "made up by a test"

[build]
system = "autoconf"
headers = ["config.h"]
make = ["WAIT=0"]
binary = "{name}"

[program]
file = "{name}"
applets = {applets}

[budget]
text = 100_000
file = 100_000
"""


def tarball(name: str) -> bytes:
    """The source of the program *name*, as upstream would pack it."""
    files = {
        "configure": "exit 0\n",
        "Makefile": MAKEFILE.format(name=name),
        f"{name}.c": SOURCE,
    }
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        top = tarfile.TarInfo(f"{name}-1")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1/{path}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return sink.getvalue()


def write_recipes(root: Path) -> None:
    """Two components below *root*, their sources in its store, and the default image of them."""
    upstream = pysequoia.Tsk.generate("Upstream <up@example.org>")
    certificate = upstream.extract_certificate()
    store = root / "artifacts" / "store"
    store.mkdir()
    for name, applets in (
        ("alpha", ["false", "init", "reboot", "sh", "syslogd"]),
        ("beta", ["dropbear"]),
    ):
        packed, patch = tarball(name), PATCH.format(name=name)
        sha256 = hashlib.sha256(packed).hexdigest()
        (store / f"{sha256}-{name}-1.tar").write_bytes(packed)
        folder = root / "recipes" / "components" / name
        folder.mkdir(parents=True)
        mode = pysequoia.SignatureMode.DETACHED
        signature = pysequoia.sign(upstream.signer(), packed, mode=mode, armor=True)
        (folder / f"{name}-1.tar.asc").write_bytes(signature)
        (folder / "key.asc").write_text(str(certificate))
        (folder / "config.h").write_text(CONFIG)
        (folder / "number.patch").write_text(patch)
        text = RECIPE.format(
            name=name,
            size=len(packed),
            sha256=sha256,
            signature=hashlib.sha256(signature).hexdigest(),
            fingerprint=certificate.fingerprint.upper(),
            patch=hashlib.sha256(patch.encode()).hexdigest(),
            applets=str(applets).replace("'", '"'),
        )
        if name == "beta":
            text = text.replace('"autoconf"\nheaders', '"make"\nfiles')
        (folder / "recipe.toml").write_text(text)
    image = root / "recipes" / "images" / "nifty.toml"
    for other in set(image.parent.glob("*.toml")) - {image}:
        other.unlink()
    listed = re.sub(r"(?m)^components = .*$", 'components = ["alpha", "beta"]', image.read_text())
    image.write_text(listed)


def replace_once(path: Path, old: str, new: str) -> None:
    """Change *path*, and find out if it no longer says what the test believes."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def repatch(root: Path, name: str, old: str, new: str) -> None:
    """Change the patch of the component *name*, and the digest its recipe pins."""
    folder = root / "recipes" / "components" / name
    path = folder / "number.patch"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    replace_once(path, old, new)
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    replace_once(folder / "recipe.toml", before, after)
