"""The door to other programs: what they see, what comes back, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
import time
from pathlib import Path

import pytest

from pipeline import run as door
from pipeline.paths import PROJECT
from pipeline.run import SECRETS, ProgramError, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_comes_back() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run(["printf", r"a\377b"]).stdout == "a\ufffdb"


def test_input_is_given() -> None:
    assert run(["cat"], stdin=b"given").stdout == "given"


def test_without_input_there_is_none() -> None:
    assert run(["cat"]).stdout == ""


def test_much_input_and_output_at_once() -> None:
    much = b"x" * (1 << 20)
    assert run(["cat"], stdin=much).stdout == much.decode()


def test_input_that_nobody_reads_is_no_error() -> None:
    assert run(["true"], stdin=b"x" * (1 << 20)).returncode == 0


def test_no_variable_of_the_user_s_leaks_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    found = run([sys.executable, "-c", "import os; print(sorted(os.environ))"]).stdout
    assert found in ("['LC_ALL', 'PATH']\n", "['LC_ALL', 'LC_CTYPE', 'PATH']\n")


def test_the_environment_is_exactly_the_one_given() -> None:
    assert run(["/usr/bin/env"], env={"A": "1"}).stdout == "A=1\n"


def test_no_program_sees_a_secret_whatever_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hush-hush")
    assert "hush-hush" not in run(["/usr/bin/env"], env=os.environ).stdout
    words = "from pipeline.run import replace; replace(['/usr/bin/env'])"
    told = subprocess.run(
        [sys.executable, "-c", words], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert "PATH=" in told
    assert "hush-hush" not in told


def test_words_are_not_read_by_a_shell() -> None:
    assert run(["echo", "$HOME; *", ""]).stdout == "$HOME; * \n"


def test_paths_are_words(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("content")
    assert run(["cat", tmp_path / "x"]).stdout == "content"


def test_the_folder(tmp_path: Path) -> None:
    assert run(["/bin/pwd", "-P"], cwd=tmp_path).stdout == f"{tmp_path.resolve()}\n"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, "644"), (0o077, "600")])
def test_the_umask(tmp_path: Path, umask: int, mode: str) -> None:
    run(["touch", "x"], cwd=tmp_path, umask=umask)
    assert f"{(tmp_path / 'x').stat().st_mode & 0o777:o}" == mode


def test_a_missing_program() -> None:
    with pytest.raises(ProgramError, match=r"^no-such-program: no such program"):
        run(["no-such-program", "x"])


def test_a_program_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("#!/bin/sh\n")
    with pytest.raises(ProgramError, match=r"/x: Permission denied"):
        run([tmp_path / "x"])


def test_a_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "x").chmod(0o755)
    with pytest.raises(ProgramError, match=r"/x: Exec format error"):
        run([tmp_path / "x"])


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match=rf"^{tmp_path}/{kind}: No"):
        run(["true"], cwd=tmp_path / kind)


def test_failure_tells_the_last_lines() -> None:
    with pytest.raises(ProgramError, match=r"^sh -c .* failed with 3:\n") as caught:
        run(["sh", "-c", "seq 1 99; echo why >&2; exit 3"])
    assert caught.value.returncode == 3
    lines = caught.value.message.splitlines()
    assert lines[1:3] + lines[-1:] == ["  | 86", "  | 87", "  | why"]


def test_failure_can_be_asked_for() -> None:
    assert run(["false"], check=False).returncode == 1


def test_a_signal_is_named() -> None:
    with pytest.raises(ProgramError, match="was killed by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_log_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = run(["sh", "-c", "echo one; echo two >&2"], log=log)
    run(["echo", "three"], log=log)
    assert log.read_text() == "one\ntwo\nthree\n"
    assert (first.stdout, first.stderr) == ("", "")


def test_failure_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ProgramError) as caught:
        run(["sh", "-c", "echo why; exit 1"], log=log)
    assert "  | why" in caught.value.message
    assert caught.value.message.endswith(f"the whole output: {log}")


@pytest.mark.parametrize("logged", [True, False])
def test_a_timeout_ends_the_program_and_its_children(tmp_path: Path, *, logged: bool) -> None:
    script = "sleep 600 & echo $! > child; wait"
    log = tmp_path / "log" if logged else None
    with pytest.raises(ProgramError, match=r"no end after 0\.5 s"):
        run(
            ["sh", "-c", script],
            cwd=tmp_path,
            timeout=0.5,
            log=log,
        )
    assert not goes_on((tmp_path / "child").read_text().strip())


FAMILY = "(sleep 600 & echo $! >> pids; exec sleep 600) & echo $$ $! >> pids; wait"


@pytest.mark.parametrize("logged", [True, False])
def test_a_program_ends_with_the_one_that_started_it(tmp_path: Path, *, logged: bool) -> None:
    log = f"Path({str(tmp_path / 'log')!r})" if logged else "None"
    code = (
        "from pathlib import Path; from pipeline.run import run;"
        f"run(['sh', '-c', {FAMILY!r}], cwd=Path({str(tmp_path)!r}), log={log})"
    )
    pids = tmp_path / "pids"
    with subprocess.Popen(python(code), start_new_session=True) as starter:
        until = time.monotonic() + 60
        while not (pids.exists() and len(pids.read_text().split()) == 3):
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(starter.pid, signal.SIGKILL)
    assert [number for number in pids.read_text().split() if goes_on(number)] == []


def goes_on(number: str) -> bool:
    """Whether the process *number* is still there after a while."""
    until = time.monotonic() + 20
    while is_running(Path("/proc") / number) and time.monotonic() < until:
        time.sleep(0.01)
    return is_running(Path("/proc") / number)


def is_running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_is_open_in_the_program_but_its_three() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        found = run(python("import os; print(os.listdir('/proc/self/fd'))")).stdout
    finally:
        os.close(reader)
        os.close(writer)
    assert found == "['0', '1', '2', '3']\n"  # the fourth is the listing's own


def test_last_lines_skips_empty_ones() -> None:
    assert door.last_lines("a\n\n  \nb\nc\n", 2) == "  | b\n  | c"
