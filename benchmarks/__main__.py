"""Measures everything, or some parts: `doit bench`, in words of its own.

    python -m benchmarks [--parts build,image,deploy,start] [--counts 10,100] [--on tmpfs,xfs]
        [--rounds 3] [--image PATH] [--out FOLDER] [--prefix /home]

docs/benchmarks.md says what each word means and what is measured.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks import bench
from benchmarks import options as choosing
from pipeline.errors import NiftyError, ProblemsError
from pipeline.paths import PROJECT
from pipeline.settings import parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from benchmarks.options import Options

# A folder that is not this user's, or a full disk.
_NOT_BUGS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Measure, print, write, exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        bench.run(_given(words))
    except NiftyError as error:
        # deploy says so in an error of its own
        if not (isinstance(error, ProblemsError) and "interrupted" in error.problems):
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _NOT_BUGS:
            raise
        sys.stderr.write(f"error: {error.filename or 'writing'}: {error.strerror}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        pass
    else:
        sys.exit(0)
    sys.stderr.write("interrupted\n")
    # end as our caller expects of a program that was interrupted
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("still here after SIGINT")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _given(words: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    machine = os.uname().machine
    parser.add_argument(
        "--image", type=Path, default=PROJECT / f"artifacts/nifty-{machine}.tar.zst"
    )
    parser.add_argument("--out", type=Path, default=choosing.OUT)
    parser.add_argument("--prefix", type=Path, default=Path("/home"))
    for name in ("parts", "counts", "on", "rounds"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args(words)
    texts = {name: getattr(given, name) for name in ("parts", "counts", "on", "rounds")}
    # the same words as doit's, checked by the same rules
    checked = parse({name: text for name, text in texts.items() if text is not None}, images=())
    return choosing.chosen(
        image=given.image,
        parts=checked.parts,
        counts=checked.counts,
        on=checked.on,
        rounds=checked.rounds,
        out=given.out,
        prefix=given.prefix,
    )


if __name__ == "__main__":
    main()
