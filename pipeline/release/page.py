"""index.html: a release for a person who comes by with a browser.

One file, without scripts or anything from elsewhere; the same bytes each time. Whatever is not this
program's own word is escaped.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from pipeline.release import incus, layout, names
from pipeline.trust import memory, sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.trust.keyring import Keyring

# What each kind of file is, and in which order they stand.
_KINDS = {
    "tar.zst": "the image, for doit deploy and importctl of systemd 258 and later",
    "tar.xz": "the same image, for machinectl, importctl and systemd-sysupdate",
    "incus.tar.xz": "its metadata for incus image import, with the .tar.xz",
    "json": "its manifest: every file in it, digest and sums",
    "cdx.json": "bill of materials (CycloneDX)",
    "vex.json": "known vulnerabilities and whether they matter (OpenVEX)",
    names.PROVENANCE: "provenance: who built all of these, and of what (in-toto, SLSA)",
}
_SOURCE = "corresponding source, and how to build the same image of it"
# where nobody has told what it is served as, a reader sees that a word is missing
_SOMEWHERE = "https://THIS-PLACE/"
_STYLE = """\
:root{color-scheme:light dark;--line:#8885;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin-bottom:0}h2{font-size:1.25rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem .4rem 0}
td{border-top:1px solid var(--line)}
th{font-weight:600}td.size{text-align:right;white-space:nowrap}
th:first-child{width:30rem}th:last-child{text-align:right}
code,pre{font:13px/1.5 ui-monospace,monospace}
td code{font-size:12px;overflow-wrap:anywhere;opacity:.75}
pre{background:var(--soft);border:1px solid var(--line);border-radius:.4rem;padding:.7rem 1rem;\
overflow-x:auto}
p.state{padding:.7rem 1rem;border:1px solid var(--line);border-left-width:.4rem;border-radius:.4rem}
p.state code{overflow-wrap:anywhere}
@media(max-width:45rem){thead{display:none}table,tbody,tr,td{display:block;border:0;padding:0}
td.size{text-align:left}td.size::after{content:" bytes"}
tr{padding:.5rem 0;border-top:1px solid var(--line)}}
"""


def page(contents: Mapping[str, bytes], ring: Keyring | None, url: str) -> bytes:
    """The page about the release with *contents*, signed by *ring* if that is given.

    *url* is where it will be served, with a slash at its end; empty if that is not known.
    """
    versions = _versions(contents)
    images = sorted({image for image, _version in versions})
    parts = [
        f"<h1>{escape(', '.join(images))}</h1>",
        f"<p>{_newest(versions, contents)}</p>",
        _state(ring),
        *(
            _section(image, version, files, contents)
            for (image, version), files in versions.items()
        ),
        *_programs(contents),
        "<h2>Verify</h2>",
        *(_verifying(ring) if ring else ["<p>There is no signature to verify.</p>"]),
        "<h2>Use</h2>",
        *_using(images, contents, url or _SOMEWHERE),
    ]
    title = escape(f"{', '.join(images)}: releases")
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{_STYLE}</style>
</head>
<body>
{"".join(f"{part}{chr(10)}" for part in parts)}</body>
</html>
""".encode()


def _versions(contents: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """The files of each version, newest first within an image."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in contents:
        if named := names.parse(name):
            found.setdefault((named.image, named.version), []).append(name)
    newest = sorted(found, key=lambda one: memory.order(one[1]), reverse=True)
    return {one: found[one] for one in sorted(newest, key=lambda one: one[0])}


def _described(files: Iterable[str], contents: Mapping[str, bytes]) -> tuple[str, str]:
    """The title of a version, and its day."""
    for name in sorted(files):
        if (named := names.parse(name)) and named.architecture and named.ending == "json":
            about = json.loads(contents[name])["manifest"]
            return about["title"], f"{datetime.fromtimestamp(about['epoch'], UTC):%Y-%m-%d}"
    return "", ""


def _newest(versions: Mapping[tuple[str, str], list[str]], contents: Mapping[str, bytes]) -> str:
    """A line about each image: what it is called, its newest version and day."""
    found: dict[str, str] = {}
    for (image, version), files in versions.items():
        title, day = _described(files, contents)
        if title and image not in found:
            told = f"{image}: {title}, a root file system. Newest: {version} of {day}."
            found[image] = escape(told)
    return "<br>".join(found.values()) or "Root file systems."


def _state(ring: Keyring | None) -> str:
    if ring is None:
        return '<p class="state"><strong>Not signed.</strong> Nobody can tell whose this is.</p>'
    who = "<br>".join(
        f"{escape(one.users[0] if one.users else 'nobody')}<br><code>{one.fingerprint}</code>"
        for one in ring.certificates
    )
    return (
        f'<p class="state"><strong>Signed by</strong> {who}<br>Whoever can change this page can '
        "change that line: compare the fingerprint with one from elsewhere.</p>"
    )


def _section(image: str, version: str, files: Iterable[str], contents: Mapping[str, bytes]) -> str:
    rows = "".join(_row(name, contents[name]) for name in sorted(files, key=_order))
    _title, day = _described(files, contents)
    return (
        f"<h2>{escape(image)} {escape(version)}</h2>\n<p>{day}</p>\n"
        "<table><thead><tr><th>file, sha256<th>what it is<th>bytes</thead>\n"
        f"<tbody>\n{rows}</tbody></table>"
    )


def _programs(contents: Mapping[str, bytes]) -> Iterator[str]:
    """What a host needs to deploy, where that is in the release."""
    rows = "".join(
        _row(name, contents[name]) for name in sorted(contents) if names.is_program(name)
    )
    if rows:
        yield (
            "<h2>For hosts</h2>\n<p>nifty's commands for a host, as one file for its own Python: "
            "nothing else is installed there.</p>\n"
            "<table><thead><tr><th>file, sha256<th>what it is<th>bytes</thead>\n"
            f"<tbody>\n{rows}</tbody></table>"
        )


def _order(name: str) -> tuple[int, int, str]:
    """By architecture, then by kind; what is for all comes last."""
    named = names.parse(name)
    kinds = list(_KINDS)
    if named is None or not named.architecture:
        return len(names.WORDS), 0, name
    at = kinds.index(named.ending) if named.ending in kinds else len(kinds)
    return [*names.WORDS].index(named.architecture), at, name


def _row(name: str, content: bytes) -> str:
    named = names.parse(name)
    what = _KINDS.get(named.ending, "") if named else ""
    if named and not named.architecture and named.ending != names.PROVENANCE:
        what = _SOURCE
    if found := re.fullmatch(r"nifty-host-py3([0-9]+)-(.*)\.pyz", name):
        what = f"for /usr/bin/python3 that is Python 3.{found[1]}, on {found[2]}"
    digest = hashlib.sha256(content).hexdigest()
    return (
        f'<tr><td><a href="{escape(name)}">{escape(name)}</a><br><code>{digest}</code>'
        f'<td>{escape(what)}<td class="size">{len(content):,}\n'
    )


def _verifying(ring: Keyring) -> Iterator[str]:
    yield (
        f'<p><a href="{sums.NAME}">{sums.NAME}</a> has the sum of every file, '
        f'<a href="{sums.SIGNATURE}">{sums.SIGNATURE}</a> is the signature over it. The key is in '
        f'<a href="{names.KEYRING}">{names.KEYRING}</a> and, as text, '
        f'<a href="{names.ARMORED}">{names.ARMORED}</a>; take it from elsewhere if you can.</p>'
    )
    first = ring.certificates[0].fingerprint
    yield _typed(
        "With GnuPG, in a folder with the files that you want:",
        f"gpg --show-keys {names.ARMORED}      # {first}",
        f"gpgv --keyring ./{names.KEYRING} {sums.SIGNATURE} {sums.NAME}",
        f"sha256sum --check --ignore-missing {sums.NAME}",
        f"sha256sum --check --ignore-missing {names.FOLDERS}    # oci/ and streams/",
    )
    yield _typed(
        "Or the whole of it, also what is inside the archives, by nifty itself:",
        f"doit verify from=. keyring=./{names.KEYRING}",
    )


def _using(images: Iterable[str], contents: Mapping[str, bytes], url: str) -> Iterator[str]:
    yield _typed(
        "A thousand of it on one host, verified:",
        f"doit deploy count=1000 image={url} keyring={names.KEYRING}",
    )
    for (image, version), files in _versions(contents).items():
        if packed := [name for name in sorted(files) if name.endswith("_x86-64.tar.xz")]:
            yield _typed(
                f"{image} {version} as a machine of systemd's:",
                f"cp {names.KEYRING} /etc/systemd/import-pubring.gpg",
                f"machinectl pull-tar --verify=signature {url}{packed[0]} {image}",
            )
            break
    for image in images:
        newest = next(version for one, version in _versions(contents) if one == image)
        yield _typed(
            "With container engines, from a copy of this directory:",
            f"skopeo copy oci:{layout.FOLDER}:{image}_{newest} docker-daemon:{image}:{newest}",
        )
        if any(name.endswith(f".{incus.ENDING}") for name in contents):
            yield _typed(
                "With Incus, which trusts the server and looks at no signature:",
                f"incus remote add {image} {url.rstrip('/')} --protocol simplestreams",
                f"incus launch {image}:{image}",
            )


def _typed(what: str, *lines: str) -> str:
    return f"<p>{escape(what)}</p>\n<pre>{escape(chr(10).join(lines))}</pre>"
