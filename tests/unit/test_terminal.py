"""What others wrote reaches no terminal raw, and no stream that fails makes a traceback."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess  # noqa: TID251 (what is timed is the process itself)
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline import terminal
from pipeline.errors import MOST_LINES, NiftyError, ProblemsError, counted, shown, shown_lines, some
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain, grün, 字", "plain, grün, 字"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]52;c;YQ==\x07", r"\x1b]52;c;YQ==\x07"),
        ("a\nhint: rm -r /", r"a\nhint: rm -r /"),
        ("back\r\b\x7f", r"back\r\x08\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202etxt.exe\u2066", r"a\u202etxt.exe\u2066"),
        ("a\u2028b\u0085c", r"a\u2028b\x85c"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("\U000e0041\ufeff", r"\U000e0041\ufeff"),
        ("\0", r"\x00"),
    ],
)
def test_whatever_is_not_printable_is_escaped(text: str, told: str) -> None:
    assert shown(text) == told
    assert shown(text).isprintable()


def test_a_line_has_an_end() -> None:
    assert shown("x" * 10_000_000, most=5) == "xxxxx... (9999995 more characters)"
    assert len(shown("\x1b" * 10_000_000)) < 20_000


def test_lines_and_tabs_stay_where_they_are_meant() -> None:
    assert shown_lines("a\n\tb\x1b\n") == "a\n\tb\\x1b\n"


def test_a_problem_is_one_line_and_there_are_not_too_many() -> None:
    problems = [f"entry {number}\nhint: no" for number in range(MOST_LINES + 5)]
    lines = str(ProblemsError("bad:", problems, hint="yes")).splitlines()
    assert lines[:2] == ["bad:", "  entry 0\\nhint: no"]
    assert lines[-2:] == ["  and 5 more", "hint: yes"]
    assert len(lines) == MOST_LINES + 3


def test_nothing_that_is_told_reaches_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.tell("error: \x1b[2J\n")
    terminal.result("one\n\x1b]0;title\x07\n")
    terminal.lines("a\nb", "\x9b")
    told = capsys.readouterr()
    assert told.err == "error: \\x1b[2J\n"
    assert told.out == "one\n\\x1b]0;title\\x07\na\\nb\n\\x9b\n"


def test_json_stays_json_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "\x1b\x7f\x9b\u202e\udcff\n"}
    terminal.json(json.dumps(value) + "\n")
    told = capsys.readouterr().out
    assert told.rstrip("\n").isprintable()
    assert json.loads(told) == value


def child(code: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    """*code* after `settle`, in a process of its own that writes when its buffer is full."""
    begin = "import sys\nfrom pipeline import terminal\nterminal.prepare()\n"
    how.setdefault("env", {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"})
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", begin + code], cwd=PROJECT, check=False, **how
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_a_stream_that_cannot_show_a_character(encoding: str) -> None:
    code = "terminal.lines('├── ä 字'); terminal.tell('… 字\\n')"
    done = child(code, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    shapes = {
        "ascii": r"|-- \xe4 \u5b57",
        "latin-1": r"|-- ä \u5b57",
        "utf-8": "├── ä 字",
        "cp437": r"├── ä \u5b57",
    }
    assert (done.returncode, done.stdout.decode(encoding)) == (0, shapes[encoding] + "\n")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_is_not_given_to_the_next_file(number: int, tmp_path: object) -> None:
    code = f"with open('{tmp_path}/x', 'wb') as file: sys.exit(file.fileno() < 3)"
    done = child(code, preexec_fn=lambda: os.close(number))
    assert done.returncode == 0


TELL = "try: terminal.lines('x'); terminal.flush()\nexcept Exception as error: "


def test_standard_output_that_is_closed() -> None:
    code = f"{TELL}terminal.tell(str(error))"
    done = child(code, preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE)
    told = b"standard output is closed: nowhere to write the result to"
    assert (done.returncode, done.stderr) == (0, told)


def test_standard_output_that_is_full() -> None:
    code = f"{TELL}terminal.tell(str(error))"
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        done = child(code, stdout=full, stderr=subprocess.PIPE)
        doit_s_own = child("print('x')", stdout=full, stderr=subprocess.PIPE)
    told = b"standard output: No space left on device: the result is not whole"
    assert (done.returncode, done.stderr) == (0, told)
    assert (doit_s_own.returncode, doit_s_own.stderr) == (1, b"error: " + told + b"\n")


def test_standard_output_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = f"{TELL}terminal.tell(type(error).__name__)"
    done = child(code, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"ReaderGoneError")


def test_standard_error_that_takes_nothing() -> None:
    code = "terminal.tell('x\\n'); terminal.tell('y\\n'); terminal.lines('done')"
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (a device)
        done = child(code, stdout=subprocess.PIPE, stderr=full)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    done = child(code, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_nobody_is_asked_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.StringIO("yes\n")):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert terminal.ask("sure?") is None


# ----- nobody goes round it


def writes(tree: ast.AST) -> Iterator[int]:
    """Lines of a module that write to a standard stream, or could."""
    streams = {"stdout", "stderr", "__stdout__", "__stderr__"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="sys"), attr=attr) if attr in streams:
                yield node.lineno
            case ast.ImportFrom(module="sys", names=names):
                yield from (node.lineno for one in names if one.name in streams)
            case ast.Call(func=ast.Name(id="print" | "input")):
                yield node.lineno
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="os"), attr="write"),
                args=[ast.Constant(value=1 | 2), *_],
            ):
                yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "print('x')",
        "sys.stdout.write('x')",
        "sys.stderr.flush()",
        "from sys import stdout",
        "with redirect(sys.__stderr__): pass",
        "os.write(2, b'x')",
    ],
)
def test_a_way_round_would_be_found(code: str) -> None:
    assert list(writes(ast.parse(code))) == [1]


def test_one_module_alone_writes_to_the_terminal() -> None:
    modules = [PROJECT / "dodo.py", *sorted((PROJECT / "pipeline").rglob("*.py"))]
    found = {
        f"{path.relative_to(PROJECT)}:{line}"
        for path in modules
        for line in writes(ast.parse(path.read_text("utf-8")))
    }
    assert {place.partition(":")[0] for place in found} == {"pipeline/terminal.py"}


def test_an_error_keeps_its_words() -> None:
    error = NiftyError("grün\nline", hint="type this")
    assert str(error) == "grün\nline\nhint: type this"


def test_of_many_the_first_are_named_and_the_rest_counted() -> None:
    assert some([]) == ""
    assert some(range(5)) == "0, 1, 2, 3, 4"
    assert some(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert some("abcd", most=3) == "a, b, c and 1 more"


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(number) for number in (0, 1, 2)] == ["0 instances", "1 instance", "2 instances"]
    assert counted(1, "instance has", "instances have") == "1 instance has"
    assert counted(5, "instance has", "instances have") == "5 instances have"
