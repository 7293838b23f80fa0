"""Compiles the C peers: by the system's compiler or the one that builds the image."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.run import CLEAN_ENVIRONMENT, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent


def compiled(name: str, work: Path) -> Path:
    """The program of *name*.c, static (it may run on another system), made in *work*.

    Raises NiftyError where nothing compiles it.
    """
    program = work / name
    told = []
    for compiler in _compilers():
        try:
            run(
                [*compiler, "-O2", "-static", "-o", program, HERE / f"{name}.c"],
                env={**CLEAN_ENVIRONMENT, "HOME": str(work), "TMPDIR": str(work)},
            )
        except ProgramError as error:
            told.append(str(error))
        else:
            return program
    raise NiftyError(
        "\n".join([f"{HERE / name}.c cannot be compiled:", *told]),
        hint="pip install -e '.[build]' in this environment, or apt-get install gcc libc6-dev",
    )


def _compilers() -> Iterator[tuple[str, ...]]:
    yield ("cc",)
    if find_spec("ziglang") is not None:
        target = f"{os.uname().machine}-linux-musl"
        yield (sys.executable, "-m", "ziglang", "cc", "-target", target)
