"""`doit inspect`: the binaries of an image, or one ELF file with what it needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline import elf, libraries, terminal
from pipeline.builder.assembly import inspection
from pipeline.commands.places import artifacts
from pipeline.commands.tables import print_json, print_table
from pipeline.elf import ElfFacts, Linkage
from pipeline.host.binds import dropins
from pipeline.image import archive
from pipeline.image import manifest as manifests
from pipeline.image.rootfs import Symlink
from pipeline.libraries import Closure, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.builder.assembly.inspection import Binary, Memory
    from pipeline.host.binds.dropins import Bound
    from pipeline.image.manifest import Manifest
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Tell of the file that is named, else of the image."""
    if settings.file:
        _inspect_file(settings)
    else:
        _inspect_image(settings)


def _inspect_file(settings: Settings) -> None:
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
    path = Path(settings.image) if settings.image_is_path else artifacts(settings)[0]
    if not settings.image_is_path and not path.is_file():
        return None
    return manifests.read(archive.read(path), name=str(path))


def _verdict(given: Bound) -> dict[str, Any]:
    """Whether a file would run in the image on this host, in JSON's types."""
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
    if facts is not None and facts.linkage in (Linkage.NONE, Linkage.STATIC, Linkage.STATIC_PIE):
        return None
    return libraries.closure(PurePosixPath(path.absolute()), libraries.this_host())


def _print_facts(facts: ElfFacts) -> None:
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
    found = inspection.binaries(archive.read(artifacts(settings)[0]))
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
