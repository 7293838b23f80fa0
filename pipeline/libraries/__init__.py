"""The libraries a program needs, found in any directory tree without running anything.

`closure` resolves what ld.so would; `needs` is what of it a manifest records, `check` holds that
against another host's tree, and `binding` says what of that host an instance has to see.
"""

from __future__ import annotations

from pipeline.libraries.abi import Libc
from pipeline.libraries.bind import Binding, binding, directories
from pipeline.libraries.cpu import this_host
from pipeline.libraries.loaded import Closure, Loaded
from pipeline.libraries.problems import Kind, Problem
from pipeline.libraries.program import closure
from pipeline.libraries.requirements import Needs, check, needs, resolve_needs
from pipeline.libraries.root import LibraryError, LibraryRoot, Link

__all__ = [
    "Binding",
    "Closure",
    "Kind",
    "Libc",
    "LibraryError",
    "LibraryRoot",
    "Link",
    "Loaded",
    "Needs",
    "Problem",
    "binding",
    "check",
    "closure",
    "directories",
    "needs",
    "resolve_needs",
    "this_host",
]
