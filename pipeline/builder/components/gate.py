"""The gate: what a binary must be to go into an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import elf
from pipeline.builder.components import linked
from pipeline.builder.recipes.component import Component, Extract
from pipeline.elf import Linkage
from pipeline.errors import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.builder.components.results import Built
    from pipeline.elf import ElfFacts


class GateError(ProblemsError):
    """A binary that must not go into an image; each problem names the number and the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most a component may weigh, in bytes: the whole file, and its text segment."""

    max_file: int
    max_text: int


# A static program of glibc still loads libnss_*.so at run time to look up users and hosts, and
# fails or crashes where that very glibc is not installed; PT_INTERP and DT_NEEDED say nothing
# about it. getpwnam and the like link in nss_module.c and nss_database.c with the name to load
# ("libnss_%s.so%s"; before 2.34 "libnss_" alone), the configuration file, and the names of
# functions for assertions. These are data, so stripping leaves them.
_NSS_MARKS = (b"libnss_", b"/etc/nsswitch.conf", b"__nss_")
# Another program may well mention those; glibc's start-up code, linked into every static program,
# has messages that musl's has not.
_GLIBC_MARKS = (b"glibc error", b"glibc detected", b"GLIBC_TUNABLES", b"GNU C Library")


def check(component: Component, built: Built, architecture: str) -> None:
    """The gate: for this machine, static, self-sufficient, no executable stack, within budget.

    What was linked in is what the recipe says. Raises GateError, LinkedError.
    """
    if not isinstance(component.build, Extract):
        linked.check(component, built.linked)
    content = built.binary.read_bytes()
    facts = elf.parse(content, built.binary.name)
    limits = Budget(max_file=component.budget.file, max_text=component.budget.text)
    found = problems(
        facts, content, name=component.name, limits=limits, accept_nss=bool(component.accept_nss)
    )
    if facts.machine != architecture:
        found = (f"{component.name}: is for {facts.machine}, the image for {architecture}", *found)
    if found:
        raise GateError(
            f"{component.name} {component.version} must not go into an image:",
            found,
            hint=f"see [budget] in recipes/components/{component.name}/recipe.toml",
        )


def problems(
    facts: ElfFacts, content: bytes, *, name: str, limits: Budget, accept_nss: bool = False
) -> tuple[str, ...]:
    """What keeps the component *name* (its *facts* and *content*) out of an image; empty if fine.

    It must need nothing of its host: static, no libraries at run time either (glibc's NSS, unless
    its recipe says why that is harmless), no executable stack; and be within *limits*.
    """
    found = [*_dependence(facts)]
    if not found and not accept_nss:
        found += _name_services(content)
    if facts.executable_stack:
        found.append("its stack is executable (PT_GNU_STACK has X, or is missing)")
    if len(content) > limits.max_file:
        found.append(_excess("the file", len(content), limits.max_file))
    if facts.text_segment > limits.max_text:
        found.append(_excess("the text segment", facts.text_segment, limits.max_text))
    return tuple(f"{name}: {problem}" for problem in found)


def _dependence(facts: ElfFacts) -> Iterator[str]:
    if facts.interpreter is not None:
        yield f"must be static, but wants the interpreter {facts.interpreter}"
    if facts.needed:
        yield f"must be static, but needs {len(facts.needed)} libraries: {', '.join(facts.needed)}"
    if facts.interpreter is not None or facts.needed:
        return
    if facts.linkage not in (Linkage.STATIC, Linkage.STATIC_PIE):
        yield f"must be a static program, but its type is {facts.type}, its linkage {facts.linkage}"


def _name_services(content: bytes) -> Iterator[str]:
    marks = [mark.decode() for mark in _NSS_MARKS if mark in content]
    if marks and any(mark in content for mark in _GLIBC_MARKS):
        yield f"is static, but glibc loads its NSS libraries at run time (has {', '.join(marks)})"


def _excess(what: str, size: int, limit: int) -> str:
    return f"{what} has {size:,} bytes, the limit is {limit:,} ({size - limit:,} too many)"
