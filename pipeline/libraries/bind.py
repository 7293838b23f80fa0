"""What of a host a closure needs to see inside an instance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.libraries.loaded import Closure, Loaded
    from pipeline.libraries.root import Link

# Never bound as a whole: systemd-nspawn would find /usr/lib/systemd/systemd and start that, and
# the others hold what an image has of its own.
_TOO_WIDE = frozenset(
    PurePosixPath(path)
    for path in (
        *("/", "/bin", "/cbin", "/etc", "/home", "/lib", "/opt", "/root", "/sbin", "/usr", "/var"),
        *("/usr/bin", "/usr/lib", "/usr/libexec", "/usr/local", "/usr/local/bin", "/usr/sbin"),
        *("/lib/systemd", "/usr/lib/systemd"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What to bind read-only, at the same paths, and the links that lead there; all sorted.

    *files* lie in directories that must not be bound as a whole, such as /usr/lib. *links* are
    those of the host on the way to a library, unless they lie in a directory that is bound.
    """

    directories: tuple[PurePosixPath, ...]
    files: tuple[PurePosixPath, ...]
    links: tuple[Link, ...]


def binding(*closures: Closure) -> Binding:
    """The smallest set of directories, files and links with which programs find their libraries.

    The programs themselves are not among them: they are the image's.
    """
    libraries = [each for closure in closures for each in _host_files(closure)]
    parents = {each.file.parent for each in libraries} - _TOO_WIDE
    directories = [path for path in parents if not parents.intersection(path.parents)]

    def is_bound(path: PurePosixPath) -> bool:
        return any(path.is_relative_to(directory) for directory in directories)

    links = {link.path: link for each in libraries for link in each.links}
    return Binding(
        directories=tuple(sorted(directories)),
        files=tuple(sorted({each.file for each in libraries if not is_bound(each.file)})),
        links=tuple(links[path] for path in sorted(links) if not is_bound(path)),
    )


def directories(closure: Closure) -> tuple[PurePosixPath, ...]:
    """The smallest set of directories to bind read-only: `/usr/lib64`, or the multiarch one."""
    return binding(closure).directories


def _host_files(closure: Closure) -> tuple[Loaded, ...]:
    interpreter = () if closure.interpreter is None else (closure.interpreter,)
    found = [*interpreter, *closure.libraries]
    for launcher in closure.launchers:
        found.extend(_host_files(launcher))
    return tuple(found)
