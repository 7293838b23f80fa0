"""Kconfig's file format, as far as laying a fragment over a configuration needs it."""

from __future__ import annotations


def key(line: str) -> str | None:
    """The option a line sets (`CONFIG_X=y`, `# CONFIG_X is not set`), None for other lines."""
    if line.startswith("# CONFIG_") and line.endswith(" is not set"):
        return line.split()[1]
    if line.startswith("CONFIG_") and "=" in line:
        return line.partition("=")[0]
    return None


def overlay(config: str, settings: list[str]) -> str:
    """*config* with each of *settings* instead of what it says of the same option."""
    replaced = {key(line) for line in settings}
    kept = (line for line in config.splitlines() if key(line) not in replaced)
    return "".join(f"{line}\n" for line in (*kept, *settings))


def unmet(config: str, settings: list[str]) -> list[str]:
    """Which of *settings* do not hold in *config*; an option that is absent counts as off."""
    final = {key(line): line for line in config.splitlines()}
    problems = []
    for line in settings:
        found = final.get(key(line), f"# {key(line)} is not set")
        if found != line:
            problems.append(f"wanted {line!r}, got {found!r}")
    return problems
