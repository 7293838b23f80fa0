"""Debian packages through apt's own client, with a configuration of its own.

The host's apt is asked where its Debian archive is and which key signs it, and its settings for
the transport (proxy, CA) hold; its lists, its cache and its files are neither used nor touched.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.builder.recipes.component import DebianBinary, DebianSource
from pipeline.errors import NiftyError, reason
from pipeline.files import locked
from pipeline.run import CLEAN_ENVIRONMENT, Completed, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
# seconds; the lists of sid are 10 MB, a package is less
_TIMEOUT = 900
# seconds in which lists are not asked for again, so that one run updates a suite once
_FRESH = 600

# `#clear` works in a file only, not with -o. The hooks are the host's, and would act on the host.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
Dir::Etc::SourceList "{folder}/archive.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/state/lists";
Dir::State::Status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Cache::Archives "{folder}/cache/archives";
Dir::Log "{folder}/log";
APT::Default-Release "";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""

_SOURCES = """\
Types: {types}
URIs: {uri}
Suites: {suite}
Components: main
Targets: {targets}
Languages: none
PDiffs: no
"""


class AptError(NiftyError):
    """Why apt did not give a package; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """A Debian archive the host knows; `key` is apt's Signed-By, None for all that apt trusts."""

    uri: str
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Apt:
    """apt's client with the private configuration in `folder`, for the suite of `location`."""

    folder: Path
    location: DebianSource | DebianBinary

    def run(self, *argv: str, cwd: Path | None = None, check: bool = True) -> Completed:
        program, *words = argv
        return _run(
            program, f"--config-file={self.folder / 'apt.conf'}", *words, cwd=cwd, check=check
        )

    def update(self, *, older_than: float) -> bool:
        """Gets the suite's lists if there are none younger; whether they are new now. Seconds."""
        stamp = self.folder / "updated"
        age = time.time() - stamp.stat().st_mtime if stamp.exists() else math.inf
        if 0 <= age <= older_than:
            return False
        self.run("apt-get", "-qq", "update")
        stamp.touch()
        return True

    def versions(self) -> tuple[str, ...]:
        """All versions of the package that the lists know, as they come."""
        name = self.location.package
        # without the package in its lists apt-cache fails, which is an answer here
        if isinstance(self.location, DebianSource):
            done = self.run("apt-cache", "showsrc", "--only-source", name, check=False)
        else:
            done = self.run("apt-cache", "show", name, check=False)
        return tuple(
            stanza["version"]
            for stanza in _stanzas(done.stdout)
            if stanza.get("package") == name and "version" in stanza
        )

    def download(self, into: Path) -> tuple[Path, ...]:
        """The package's file in *into*: the source's `.orig` tarballs, or the `.deb`."""
        wanted = f"{self.location.package}={self.location.version}"
        words = ["download", wanted]
        if isinstance(self.location, DebianSource):
            words = ["--only-source", "--download-only", "--tar-only", "source", wanted]
        self.run("apt-get", "-qq", *words, cwd=into)
        return tuple(sorted(path for path in into.iterdir() if path.is_file()))


@contextmanager
def downloaded(location: DebianSource | DebianBinary, *, work: Path) -> Iterator[tuple[Path, ...]]:
    """The files apt gets for *location*, which exist until the end of the `with` block.

    apt's lists and cache are kept below *work*; a second process waits for the first. Raises
    AptError, with the suite's versions if it no longer has the wanted one.
    """
    with _private(location, work) as apt:
        updated = apt.update(older_than=math.inf)
        found = apt.versions()
        if location.version not in found and not updated:
            updated = apt.update(older_than=_FRESH)
            found = apt.versions()
        if location.version not in found:
            has = " and ".join(sorted(set(found))) or f"no package {location.package}"
            raise AptError(
                f"suite {location.suite} has {has}, the recipe wants {location.version}",
                hint="doit outdated shows what there is",
            )
        with _emptied(apt.folder / "download") as into:
            try:
                files = apt.download(into)
            except AptError:
                # old lists may name a file the archive has moved since
                if updated or not apt.update(older_than=_FRESH):
                    raise
                files = apt.download(into)
            yield files


def versions(location: DebianSource | DebianBinary, *, work: Path) -> tuple[str, ...]:
    """Every version of *location*'s package in its suite, whatever the recipe wants.

    Raises AptError.
    """
    with _private(location, work) as apt:
        apt.update(older_than=_FRESH)
        return apt.versions()


@contextmanager
def _private(location: DebianSource | DebianBinary, work: Path) -> Iterator[_Apt]:
    """The client with its own configuration, held against other processes."""
    parts = [location.kind, location.suite]
    if isinstance(location, DebianBinary):
        parts.append(location.architecture)
    folder = work.absolute() / "-".join(parts)
    if re.search(r'["\n;\\]', str(folder)):
        raise AptError(f"apt cannot be told of a folder with such a name: {folder}")
    archive = _archive()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            _configure(folder, location, archive)
            yield _Apt(folder=folder, location=location)
    except PermissionError as error:
        raise AptError(reason(error, folder)) from error


def _configure(folder: Path, location: DebianSource | DebianBinary, archive: _Archive) -> None:
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "state/status").write_bytes(b"")
    configuration = _CONFIGURATION.format(folder=folder)
    if os.geteuid() == 0:
        # apt would change to its own user, who may not enter the folders above this one
        configuration += 'APT::Sandbox::User "root";\n'
    is_source = isinstance(location, DebianSource)
    sources = _SOURCES.format(
        types="deb-src" if is_source else "deb",
        uri=archive.uri,
        suite=location.suite,
        targets="Sources" if is_source else "Packages",
    )
    if isinstance(location, DebianBinary):
        configuration += f'APT::Architecture "{location.architecture}";\n'
        configuration += f'APT::Architectures {{ "{location.architecture}"; }};\n'
        sources += f"Architectures: {location.architecture}\n"
    if archive.key:
        sources += f"Signed-By: {archive.key}\n"
    (folder / "apt.conf").write_text(configuration, "utf-8")
    # an address may carry a password
    listed = folder / "archive.sources"
    listed.touch(0o600)
    listed.write_text(sources, "utf-8")


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    # at the start as well: a killed process leaves what it had
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _archive() -> _Archive:
    """The Debian archive of the host's own apt configuration."""
    known = _stanzas(_run("apt-get", "indextargets").stdout)
    found = [s for s in known if (s.get("origin"), s.get("label")) == ("Debian", "Debian")]
    if not found:
        # before the host's first update there are no Release files that would name the origin
        known = _stanzas(_run("apt-get", "indextargets", "--no-release-info").stdout)
        found = [s for s in known if re.search(r"/debian(\.list)?/?$", s.get("repo-uri", ""))]
    if not found:
        raise AptError("the host's apt configuration names no Debian archive")
    uri = found[0]["repo-uri"]
    return _Archive(uri=uri, key=_signed_by(found[0].get("sourcesentry", ""), uri))


def _signed_by(entry: str, uri: str) -> str | None:
    """The keyring of the sources entry *entry* (`file:number`), else Debian's own, else None.

    apt does not tell it, so its file is read: sources.list(5), both forms.
    """
    path = Path(entry.rpartition(":")[0] or "/nonexistent")
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    known = (uri.rstrip("/"), f"{uri.rstrip('/')}/")
    if path.suffix == ".sources":
        fields = [s for s in _stanzas(text) if set(known) & set(s.get("uris", "").split())]
        keys = [s.get("signed-by", "") for s in fields]
    else:
        lines = [line for line in text.splitlines() if set(known) & set(line.split())]
        options = [re.search(r"\bsigned-by=([^\s\]]+)", line, re.IGNORECASE) for line in lines]
        keys = [option[1] for option in options if option]
    # a key written out in the entry begins with a line end, a fingerprint is no path
    keys = [key for key in keys if key.startswith("/") and "\n" not in key]
    keys += [str(keyring) for keyring in _KEYRINGS if keyring.exists()]
    return keys[0] if keys else None


def _stanzas(text: str) -> tuple[Mapping[str, str], ...]:
    """Stanzas of `Field: value` lines with the fields' names in lower case (deb822(5))."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        found.append(fields)
    return tuple(fields for fields in found if fields)


def _run(*argv: str, cwd: Path | None = None, check: bool = True) -> Completed:
    env = dict(CLEAN_ENVIRONMENT)
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        if name in os.environ:
            env[name] = os.environ[name]
    try:
        return run(argv, env=env, cwd=cwd, timeout=_TIMEOUT, check=check)
    except ProgramError as error:
        raise _told(error) from error


# What apt says, and what then helps; where it says nothing of these, the network is looked at.
_HELP = (
    (
        r"is expired|invalid since",
        "the host's Debian mirror is no longer updated: name another in /etc/apt ('date' right?)",
    ),
    (r"not valid yet", "this host's clock is behind: compare 'date'"),
    (
        r"NO_PUBKEY|not signed|no longer signed|couldn't be verified|signature",
        "this host has no key for its Debian mirror: apt-get install debian-archive-keyring",
    ),
    (
        r"[Hh]ash [Ss]um mismatch|unexpected size|sync in progress",
        "the Debian mirror is being updated: try again in some minutes",
    ),
    (r"no such program", "apt is not there: only Debian and its like have it"),
    (r"No space left", "make room on that file system"),
)


def _told(error: ProgramError) -> AptError:
    reason = _reason(error)
    hints = (hint for pattern, hint in _HELP if re.search(pattern, error.message))
    return AptError(reason, hint=next(hints, None))


def _reason(error: ProgramError) -> str:
    """The first error apt names, without what was run."""
    lines = [line.removeprefix("  | ") for line in error.message.splitlines()]
    told = [line for line in lines if line.startswith("E: ")] or lines
    return told[0].removeprefix("E: ")
