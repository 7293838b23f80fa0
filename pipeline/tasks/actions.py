"""How a task speaks to doit: expected failures become messages, bugs keep their traceback."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import sys
import traceback
from functools import cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec

from doit import doit_cmd
from doit.exceptions import BaseFail, TaskError, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from pipeline import terminal
from pipeline.errors import FULL_DISK, NiftyError, reason
from pipeline.paths import PROJECT
from pipeline.program import HAS_CHECKOUT
from pipeline.run import end_with_parent
from pipeline.settings import Settings, VariablesError, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType, TracebackType

P = ParamSpec("P")

Task = dict[str, Any]

# doit would put a pipe between a program and the terminal, and progress bars would vanish
PLAIN_IO = {"capture": False}


def made(
    maker: Callable[[Settings], Task | Iterator[Task]],
    *,
    archives: bool = False,
    several: bool = False,
) -> Task | Iterator[Task]:
    """The tasks *maker* makes of this run's settings; if those are wrong, each only says so.

    With *archives*, image= may be the path of one: the host half takes what others built.
    With *several*, arch= may name more than one.
    """
    try:
        return maker(_settings(archives=archives, several=several))
    except VariablesError as error:
        tasks = maker(Settings())  # so that every task is still known by its name
        if isinstance(tasks, dict):
            return _refusal(tasks, str(error))
        return (_refusal(task, message) for message in [str(error)] for task in tasks)


def command(name: str, function: str = "run") -> Callable[..., Any]:
    """*function* of pipeline/commands/NAME.py, which is imported when it is called.

    The one lazy door: what doit loads before every command knows nothing but names.
    """

    def late(*args: Any) -> Any:
        return getattr(import_module(f"pipeline.commands.{name}"), function)(*args)

    return late


def always(name: str) -> Callable[[Settings], Task]:
    """A maker of the task that runs command *name* each time, whatever doit remembers.

    For commands whose truth is not a file of the build: the host's own state, say.
    """

    def maker(settings: Settings) -> Task:
        return {
            "actions": [(action(command(name)), [settings])],
            "uptodate": [False],
            "io": PLAIN_IO,
            "meta": {"quiet": True},
        }

    return maker


def _refusal(task: Task, message: str) -> Task:
    kept: Task = {key: task[key] for key in ("basename", "name", "doc", "title") if key in task}
    says = {"actions": [lambda: TaskError(message)], "uptodate": [False], "io": PLAIN_IO}
    return {**kept, **says, "meta": {"quiet": True}}


@cache
def _settings(*, archives: bool, several: bool) -> Settings:
    # get_var asks for one name at a time, and a misspelt one would never be asked for
    given: Mapping[str, str] = doit_cmd._CMDLINE_VARS or {}  # noqa: SLF001
    recipes = (path.stem for path in (PROJECT / "recipes/images").glob("*.toml"))
    settings = parse(given, images=recipes if HAS_CHECKOUT else None)
    if len(settings.arches) > 1 and not several:
        raise VariablesError(
            "these variables cannot be meant so:",
            [f"arch={','.join(settings.arches)}: expected one architecture"],
        )
    if settings.image_is_path and not archives:
        raise VariablesError(
            "these variables cannot be meant so:",
            [f"image={settings.image}: expected the name of a recipe, not an archive"],
        )
    return settings


def action(function: Callable[P, Any]) -> Callable[P, Any]:
    """*function* as an action: a NiftyError fails the task with its message and exit code.

    So does a folder that is not this user's, a full disk, or a wheel that is missing. A dict it
    returns is kept as the task's values; any other result counts as success.
    """

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        end_with_parent()  # with -n 2 this is a process of its own, which doit's death must end
        try:
            result = function(*args, **kwargs)
            terminal.flush()
        except terminal.ReaderGoneError:
            return None
        except NiftyError as error:
            return (TaskFailed if error.exit_code == 1 else TaskError)(str(error))
        except ModuleNotFoundError as error:
            wheel = (error.name or "pipeline").partition(".")[0]
            if wheel != "pipeline":
                return TaskFailed(f"{wheel} is not installed in {sys.prefix}\nhint: {_install()}")
            if HAS_CHECKOUT:
                raise
            return TaskFailed(f"that needs what builds images ({error.name})\nhint: {_BUILDS}")
        except OSError as error:
            if error.errno not in _HINTS:
                raise
            return TaskFailed(f"{reason(error)}\nhint: {_hint(error.errno)}")
        return result if isinstance(result, dict) else None

    return guarded


def _install() -> str:
    here = "pip install -e '.[build,test]' in this virtual environment"
    return here if HAS_CHECKOUT else "get this program anew: it is not whole"


def _hint(number: int) -> str:
    if HAS_CHECKOUT:
        return _HINTS[number]
    return (
        "make room on that file system" if _HINTS[number] == FULL_DISK else "be its owner, or root"
    )


_BUILDS = "type it in a checkout of nifty"
_OWNER = "build as the user who owns artifacts/, or remove what another user left there"
_HINTS = {
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: "artifacts/ must be on a file system that can be written to",
    errno.ENOSPC: FULL_DISK,
    errno.EDQUOT: FULL_DISK,
}


# Seconds that a worker has to remove what it made when it is interrupted.
_TIDYING = 10


def end_tidily() -> None:
    """From now on SIGINT and SIGTERM let every `finally` run, and leave one line on stderr.

    doit itself would forget the run at SIGTERM, and show a traceback at Ctrl-C or when nobody
    reads its list any more (`doit list | head -1`).
    """
    terminal.prepare()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # until the first task
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.excepthook = _unhandled


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # with -n 2, doit sends SIGTERM to processes that tidy up after Ctrl-C already
    # (a handler: after SIG_IGN, Python complains of the one that is on its way)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    raise KeyboardInterrupt


def _unhandled(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        # with -n 2: a worker of doit that began to wait as Ctrl-C came has missed it; the others
        # take no notice of this
        for worker in multiprocessing.active_children():
            worker.terminate()
        for worker in multiprocessing.active_children():
            worker.join(_TIDYING)
            worker.kill()
        terminal.tell("interrupted\n")  # Python then dies of SIGINT, as its caller expects
    else:
        terminal.tell("".join(traceback.format_exception(kind, error, trace)))


class Reporter(ConsoleReporter):  # type: ignore[misc] # doit has no types
    """One line for each task that does something, on stderr; stdout belongs to results."""

    desc = "what is done, on stderr"

    def write(self, text: str) -> None:
        """Everything doit itself has to say goes to stderr."""
        terminal.tell(text)

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Tasks begin: none of them ends because nobody reads what it says."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        super().initialize(tasks, selected_tasks)

    def execute_task(self, task: Any) -> None:
        """A task is about to run; those that only print a result, or have no title, say nothing."""
        if task.actions and not (task.meta or {}).get("quiet") and (title := task.title()):
            self.write(f".  {title}\n")

    def skip_uptodate(self, task: Any) -> None:
        """What was done before is not worth a line."""

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A task failed: our own message alone, or a bug with its traceback."""
        if not fail.report:
            return
        if isinstance(fail, UnmetDependency):
            self.write(f"not done, for want of {fail.message}: {task.name}\n")
        elif fail.traceback:
            self.write(f"bug in task {task.name}: {fail.get_msg()}\n")
        else:
            self.write(f"error: {fail.message}\n")

    def complete_run(self) -> None:
        """Failures were told when they happened; what doit itself found wrong is left."""
        for message in self.runtime_errors:
            self.write(f"error: {message}\n")
