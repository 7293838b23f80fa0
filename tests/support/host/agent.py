"""Inside a virtual machine: runs what the tests ask for, one request a line, one answer a line.

`doit` is run by a fork that has its modules already: an emulated processor takes ten seconds to
import them, each time.
"""

from __future__ import annotations

import base64
import json
import os
import pkgutil
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

from doit.__main__ import main as doit

from pipeline import commands


def main() -> None:
    """Answer what comes through the port that is the argument, until it closes."""
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        import_module(module.name)
    port = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    answer: dict[str, Any] = {}
    with os.fdopen(port, "rb") as requests:
        while True:
            os.write(port, json.dumps(answer).encode() + b"\n")
            if not (line := requests.readline()):
                return
            answer = _run(json.loads(line))


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    """Run argv to its end; past its time, all that it started in its session ends."""
    with TemporaryFile() as given, TemporaryFile() as said, TemporaryFile() as complained:
        given.write(base64.b64decode(asked["stdin"]))
        given.seek(0)
        files = (given, said, complained)
        if not (process := os.fork()):
            os.setsid()
            for number, file in enumerate(files):
                os.dup2(file.fileno(), number)
            _become(asked)
        deadline = time.monotonic() + asked["timeout"]
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return {"fault": f"no end after {asked['timeout']:g} s"}
            time.sleep(0.02)
        told = []
        for file in (said, complained):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
    return {
        "returncode": os.waitstatus_to_exitcode(ended[1]),
        "stdout": told[0],
        "stderr": told[1],
    }


def _become(asked: dict[str, Any]) -> NoReturn:
    argv, env = asked["argv"], asked["env"]
    try:
        os.chdir(asked["cwd"])
        if argv[0] != str(Path(sys.executable).with_name("doit")):
            os.execvpe(argv[0], argv, env)  # noqa: S606 (there is no shell)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.exit(doit())


if __name__ == "__main__":
    main()
