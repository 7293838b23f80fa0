"""The tasks that only tell: outdated, inspect. Their results go to stdout."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline import terminal
from pipeline.errors import shown
from pipeline.tasks import build
from pipeline.tasks.actions import PLAIN_IO, Task, action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.build.inspection import Binary, Memory
    from pipeline.build.releases import Outdated
    from pipeline.elf import ElfFacts
    from pipeline.host.dropins import Bound
    from pipeline.image.manifest import Manifest
    from pipeline.libraries import Closure
    from pipeline.settings import Settings


def outdated(settings: Settings) -> Task:
    """Pinned versions beside the newest releases."""
    return {
        "actions": [(action(_outdated), [settings])],
        "uptodate": [False],
        "io": PLAIN_IO,
        "meta": {"quiet": True},
    }


def inspect(settings: Settings) -> Task:
    """The binaries of the image, or one ELF file with the libraries it needs."""
    given = {"actions": [(action(_inspect_file), [settings])]}
    image = {"actions": [(action(_inspect_image), [settings])], "task_dep": ["image"]}
    return {
        **(given if settings.file else image),
        "uptodate": [False],
        "io": PLAIN_IO,
        "meta": {"quiet": True},
    }


def _outdated(settings: Settings) -> None:
    from pipeline.build import releases  # noqa: PLC0415 (requests)

    known = build.load()
    rows = releases.outdated(
        known.components.values(), offline=settings.offline, work=build.CACHE / "apt"
    )
    if settings.format == "json":
        print_json([{**asdict(row), "outdated": row.is_outdated} for row in rows])
    else:
        _print_outdated(rows)
    known.check("components/")  # those that are not valid are not among the rows


def _print_outdated(rows: Iterable[Outdated]) -> None:
    table: list[tuple[str, ...]] = []
    for row in rows:
        verdict = "outdated" if row.is_outdated else "current" if row.newest else "unknown"
        why = row.origin or " ".join((row.reason or "").split())
        table.append((row.name, row.pinned, row.newest or "?", verdict, why))
    print_table(("component", "pinned", "newest", "", "told by"), table)


def _inspect_file(settings: Settings) -> None:
    from pipeline import elf  # noqa: PLC0415 (pyelftools)
    from pipeline.host import dropins  # noqa: PLC0415
    from pipeline.libraries import tree  # noqa: PLC0415 (pyelftools)

    path = Path(settings.file)
    facts = None if _is_script(path) else elf.read(path)
    found = _closure(path, facts)
    manifest = None if found is None else _manifest(settings)
    given = manifest and found and dropins.would_give(manifest, path.name, found)
    if settings.format == "json":
        plain = {} if facts is None else elf.as_json(facts)
        if found is not None:
            plain |= {"closure": tree.as_json(found)}
        if given and manifest:
            plain |= {"image": {"name": manifest.name, **_verdict(given)}}
        print_json(plain)
        return
    if facts is not None:
        _print_facts(facts)
    if found is not None:
        terminal.lines("", *tree.lines(found))
    if given and manifest and found:
        terminal.lines("", *_told(manifest.name, given, found))


def _manifest(settings: Settings) -> Manifest | None:
    """The manifest of the image meant: of an archive, or of what was built; None: nothing was."""
    from pipeline.image import archive  # noqa: PLC0415
    from pipeline.image import manifest as manifests  # noqa: PLC0415

    path = Path(settings.image) if settings.image_is_path else build.artifacts(settings)[0]
    if not settings.image_is_path and not path.is_file():
        return None
    return manifests.read(archive.read(path), name=str(path))


def _verdict(given: Bound) -> dict[str, Any]:
    """Whether a file would run in the image on this host, in JSON's types."""
    from pipeline.image.rootfs import Symlink  # noqa: PLC0415

    return {
        "runs": not given.problems,
        "binds": [bind.source for bind in given.binds],
        "links": {one.path: one.target for one in given.entries if isinstance(one, Symlink)},
        "problems": list(given.problems),
    }


def _told(name: str, given: Bound, found: Closure) -> Iterator[str]:
    """The same for people."""
    plain = _verdict(given)
    if given.problems:
        yield f"would not run in {name} on this host:"
        yield from (f"  {problem}" for problem in given.problems)
        if not found.problems:
            yield f'with libraries = "copy" the image has what it needs: {found.size:,} bytes more'
        return
    yield f'would run in {name} on this host, as a drop-in with libraries = "bind":'
    yield from (f"  {path} is bound read-only" for path in plain["binds"])
    yield from (f"  /{path} -> {target}" for path, target in plain["links"].items())


def _is_script(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(2) == b"#!"
    except (OSError, ValueError):
        return False  # reading it for its facts tells why


def _closure(path: Path, facts: ElfFacts | None) -> Closure | None:
    """What the file needs of this system to run; None if it is nothing that runs."""
    from pipeline import libraries  # noqa: PLC0415 (pyelftools)
    from pipeline.elf import Linkage  # noqa: PLC0415 (pyelftools)

    if facts is not None and facts.linkage in (Linkage.NONE, Linkage.STATIC, Linkage.STATIC_PIE):
        return None
    return libraries.closure(PurePosixPath(path.absolute()), libraries.this_host())


def _print_facts(facts: ElfFacts) -> None:
    from pipeline import elf  # noqa: PLC0415 (pyelftools)

    for name, value in elf.as_json(facts).items():
        if name != "segments":
            terminal.lines(f"{name:24} {_plain(value)}")
    for segment in facts.segments:
        terminal.result(
            f"{'segment':24} {segment.flags} {segment.memsz:>10,} bytes in memory, "
            f"{segment.filesz:,} in the file\n"
        )


def _plain(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
        case dict():
            return "; ".join(
                f"{key}: {_plain(inner) if isinstance(inner, list) else inner}"
                for key, inner in value.items()
            )
        case _:
            return str(value)


def _inspect_image(settings: Settings) -> None:
    from pipeline import elf  # noqa: PLC0415 (pyelftools)
    from pipeline.build import inspection  # noqa: PLC0415
    from pipeline.image import archive  # noqa: PLC0415

    found = inspection.binaries(archive.read(build.artifacts(settings)[0]))
    needed = inspection.memory(found, count=settings.count or 1)
    if settings.format == "json":
        rows = [
            {"path": b.path, "size": b.size, "processes": b.processes, "elf": elf.as_json(b.facts)}
            for b in found
        ]
        print_json({"binaries": rows, "memory": asdict(needed)})
        return
    print_table(
        ("binary", "file", "text", "data", "bss", "linkage", "relro", "stack", "processes"),
        [_row(binary, binary.facts) for binary in found],
    )
    terminal.result(_memory_text(needed))


def _row(binary: Binary, facts: ElfFacts) -> tuple[str, ...]:
    sizes = facts.sizes
    figures = (binary.size, sizes.text, sizes.data, sizes.bss)
    stack = "executable" if facts.executable_stack else "ok"
    return (
        f"/{binary.path}",
        *(f"{figure:,}" for figure in figures),
        facts.linkage,
        facts.relro,
        stack,
        str(binary.processes),
    )


def _memory_text(needed: Memory) -> str:
    systems = f"{needed.count:,} system" + "s" * (needed.count > 1)
    return (
        f"\nMemory for the programs of {systems}:\n"
        f"  one shared copy  {needed.shared / 1e6:>10,.1f} MB\n"
        f"  a copy each      {needed.copies / 1e6:>10,.1f} MB\n"
        "Pages of the running binaries, written ones once for each process at the most; heap,\n"
        "stacks, page tables and the runner come on top.\n"
    )


def print_json(value: Any) -> None:
    terminal.json(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")


_FIGURE = re.compile(r"[\d.,]+")


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be: a table that awk reads as well as a person."""
    safe = [tuple(map(shown, row)) for row in rows]
    columns = list(zip(head, *safe, strict=True))
    aligned = []
    for column in columns:
        width = max(map(len, column))
        is_figures = all(_FIGURE.fullmatch(cell) for cell in column[1:])
        aligned.append([cell.rjust(width) if is_figures else cell.ljust(width) for cell in column])
    for cells in zip(*aligned, strict=True):
        terminal.lines("  ".join(cells).rstrip())
