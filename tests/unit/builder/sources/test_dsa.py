"""DSA signatures are read by a library that threads may import at the same moment."""

from __future__ import annotations

import sys

from pipeline.paths import PROJECT
from pipeline.run import run

# The one thread is held in the middle of the import until the other has tried its own.
_SCRIPT = """
import sys, threading
began, tried = threading.Event(), threading.Event()
def hear(event, arguments):
    if event == "import" and arguments[0] == "pysequoia.pysequoia":
        began.set()
        tried.wait(0.5)
sys.addaudithook(hear)
def read():
    from pipeline.builder.sources import dsa
    began.wait()
    try:
        dsa._packets(b"")
    except Exception as error:
        print(type(error).__name__, error)
    tried.set()
def load():
    import pysequoia
threads = [threading.Thread(target=each) for each in (read, load)]
for each in threads: each.start()
for each in threads: each.join()
"""


def test_packets_are_read_while_another_thread_imports_their_library() -> None:
    told = run([sys.executable, "-c", _SCRIPT], cwd=PROJECT)
    assert told.stdout.startswith("_RefusedError") or told.stdout == ""
    assert told.stderr == ""
