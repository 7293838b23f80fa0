"""What doit is asked whether a task is up to date, beyond the files it depends on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import files


def installed(name: str) -> str:
    """The version of a wheel; `missing` if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def same(task: Any, values: dict[str, Any], key: str, now: list[str]) -> bool:
    """Whether *now* is what the task saw when it last ran."""
    task.value_savers.append(lambda: {key: now})
    return values.get(key) == now


# doit hands these two over by the names `task` and `values`
def stored(task: Any, values: dict[str, Any]) -> bool:  # noqa: ARG001
    """Whether the store's file is untouched since it was verified; its bytes are not read."""
    path = Path(str(values.get("path", "")))
    try:
        state = path.stat()
    except OSError:
        return False
    return bool(values.get("state") == [state.st_size, state.st_mtime_ns, state.st_ino])


# doit itself asks only whether targets exist, and would put a damaged one into SHA256SUMS
def untouched(task: Any, values: dict[str, Any]) -> bool:
    """Whether the task's targets are still what it wrote; read only if their times have changed."""
    task.value_savers.append(lambda: {"targets": [_state(path) for path in task.targets]})
    saved = values.get("targets")
    if not isinstance(saved, list) or len(saved) != len(task.targets):
        return False
    try:
        return all(
            files.stamp(path) == state[:2] or _state(path)[2] == state[2]
            for path, state in zip(task.targets, saved, strict=True)
        )
    except OSError:
        return False


# the build host's files are none of doit's file_dep: which they are is known when they were read
def unmoved(task: Any, values: dict[str, Any]) -> bool:  # noqa: ARG001
    """Whether the files that drop-ins were made of are as they were."""
    sources = values.get("sources", [])
    try:
        return all(files.stamp(path) == state for path, *state in sources)
    except OSError:
        return False


def _state(path: str) -> list[Any]:
    import hashlib  # noqa: PLC0415

    with Path(path).open("rb") as file:
        return [*files.stamp(path), hashlib.file_digest(file, "sha256").hexdigest()]
