"""Measures everything, or some parts: tables on stdout, JSON and plots in a folder.

    python benchmarks/bench.py [--parts build,image,deploy,start] [--counts 10,100] [--on tmpfs,xfs]
        [--rounds 3] [--image PATH] [--out FOLDER] [--prefix /home]

Each part is written when it is done, so an interrupted run keeps those before.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import options as choosing
from benchmarks import results
from pipeline.errors import NiftyError, ProblemsError
from pipeline.paths import PROJECT
from pipeline.progress import say
from pipeline.settings import parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from benchmarks.options import Options


# A folder that is not this user's, or a full disk.
_NOT_BUGS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class Part(Protocol):
    """A module that measures one thing."""

    def measure(self, options: Options) -> dict[str, Any]:
        """What was measured, ready for JSON."""

    def lines(self, result: dict[str, Any]) -> list[str]:
        """The same as a table."""


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Measure, print, write, exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        _run(_given(words))
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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


def _run(options: Options) -> None:
    for note in options.notes:
        say(note)
    plots = find_spec("matplotlib") is not None
    if not plots:
        say("no plots: matplotlib is not installed here (pip install -e '.[bench]')")
    with tempfile.TemporaryDirectory(prefix="nifty-bench-") as folder:
        # else matplotlib leaves a cache of fonts in the home directory
        os.environ["MPLCONFIGDIR"] = folder
        for name in options.parts:
            _measure(_part(name), options, plots=plots)


def _measure(part: Part, options: Options, *, plots: bool) -> None:
    result = part.measure(options)
    written = [results.write_json(options.out, result)]
    if plots:
        from benchmarks import plot  # noqa: PLC0415 (in an extra)

        written += plot.write(options.out, result)
    print("\n".join([*part.lines(result), f"measured on {results.on_what(result)}", ""]))
    sys.stdout.flush()
    say("written: " + ", ".join(str(path) for path in written))


def _part(name: str) -> Part:
    """The module benchmarks/NAME.py; only what is measured is imported."""
    from importlib import import_module  # noqa: PLC0415

    part: Part = import_module(f"benchmarks.{name}")
    return part


if __name__ == "__main__":
    main()
