"""Which package of the build host a file belongs to, and under which licence that is.

dpkg's database is read, not asked, so that any tree will do; rpm's is in a format of its own, and
rpm(8) is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.paths import beneath
from pipeline.run import ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_INFO = "var/lib/dpkg/info"
_STATUS = "var/lib/dpkg/status"
_RPM = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_SOME = 200  # paths in one call of rpm
_FORMAT = "%{NAME}\t%{VERSION}-%{RELEASE}\t%{LICENSE}\n"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Owner:
    """A package; *licence* in the distribution's words, None if it does not tell."""

    name: str
    version: str
    licence: str | None


def owners(paths: Iterable[str], root: Path = Path("/")) -> Mapping[str, Owner]:
    """The package of each of *paths*, absolute names in the tree *root*; of none: left out.

    A file that both dpkg and rpm know is dpkg's.
    """
    wanted = tuple(dict.fromkeys(paths))
    found: dict[str, Owner] = {}
    if beneath(root, _INFO).is_dir():
        found = dict(_of_dpkg(wanted, root))
    left = [path for path in wanted if path not in found]
    if left and any(beneath(root, place).is_dir() for place in _RPM):
        found |= dict(_of_rpm(left, root))
    return found


def _of_dpkg(paths: Iterable[str], root: Path) -> Iterator[tuple[str, Owner]]:
    """By dpkg's lists of files (dpkg-query(1), `--listfiles`)."""
    names = {alias: path for path in paths for alias in _aliases(path)}
    holders: dict[str, str] = {}
    for listing in sorted(beneath(root, _INFO).glob("*.list")):
        lines = listing.read_text("utf-8", errors="replace").splitlines()
        for line in names.keys() & set(lines):
            holders.setdefault(names[line], listing.name.removesuffix(".list").partition(":")[0])
    versions = _versions(root)
    licences = {name: _licence(root, name) for name in set(holders.values())}
    for path, name in holders.items():
        yield path, Owner(name=name, version=versions.get(name, "?"), licence=licences[name])


def _aliases(path: str) -> tuple[str, ...]:
    """What dpkg may have *path* listed as: /usr was merged long after most packages were made."""
    short = re.sub(r"^/usr(?=/(?:bin|sbin|lib[^/]*)/)", "", path)
    return (path, short if short != path else f"/usr{path}")


def _versions(root: Path) -> Mapping[str, str]:
    try:
        text = beneath(root, _STATUS).read_text("utf-8", errors="replace")
    except OSError:
        return {}
    pairs = re.findall(r"^Package: (\S+)\n(?:.*\n)*?Version: (\S+)$", text, flags=re.MULTILINE)
    return dict(pairs)


def _licence(root: Path, name: str) -> str | None:
    """The short names in a package's copyright file (DEP 5); prose is only pointed at."""
    path = f"usr/share/doc/{name}/copyright"
    try:
        text = beneath(root, path).read_text("utf-8", errors="replace")
    except OSError:
        return None
    if not re.match(r"Format(-Specification)?:", text):
        return f"see /{path}"
    named = re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, flags=re.MULTILINE)
    return ", ".join(sorted(set(named))) or None


def _of_rpm(paths: list[str], root: Path) -> Iterator[tuple[str, Owner]]:
    for at in range(0, len(paths), _SOME):
        some = paths[at : at + _SOME]
        argv = ["rpm", f"--root={root}", "--query", "--file", f"--queryformat={_FORMAT}", *some]
        try:
            told = run(argv, timeout=60, check=False).stdout.splitlines()
        except ProgramError:
            return  # there is no rpm to ask
        if len(told) != len(some):  # two packages have the same file: ask one by one
            told = [
                run([*argv[:5], path], timeout=60, check=False).stdout.partition("\n")[0]
                for path in some
            ]
        for path, line in zip(some, told, strict=True):
            fields = line.split("\t")  # else it says that no package has the file
            if len(fields) == 3:
                yield path, Owner(name=fields[0], version=fields[1], licence=fields[2])
