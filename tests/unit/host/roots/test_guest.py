"""What is read in an instance's root, whatever its own root put there, and who reads there."""

from __future__ import annotations

import ast
import os
import socket
from typing import TYPE_CHECKING

import pytest

from pipeline.host import console
from pipeline.host.console import ConsoleError
from pipeline.host.roots import guest
from pipeline.host.state.layout import Layout
from pipeline.paths import PROJECT
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TABLE = "etc/inittab"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of nifty2 below *tmp_path*, with a directory for the table."""
    folder = tmp_path / "nifty2"
    (folder / "etc").mkdir(parents=True)
    return folder


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.chdir(path.parent)  # a socket's path may have 107 bytes
        listener.bind(path.name)
        os.fchdir(here)
        os.close(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(3 << 30)


def _linked_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("/etc")


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        pytest.param(os.mkfifo, "not a regular file", id="pipe"),
        pytest.param(_socket, "not a regular file", id="socket"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "is a link", id="link to zeros"),
        pytest.param(lambda path: path.symlink_to("/etc/shadow"), "is a link", id="link to shadow"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "is a link", id="link to nothing"),
        pytest.param(lambda path: path.mkdir(), "not a regular file", id="directory"),
        pytest.param(_sparse, "more than 65536 bytes", id="huge"),
        pytest.param(_linked_folder, "Not a directory", id="linked folder"),
        pytest.param(lambda _path: None, "No such file or directory", id="nothing"),
    ],
)
def test_console_tells_in_a_line_what_is_no_table(
    root: Path, plant: Callable[[Path], object], told: str
) -> None:
    plant(root / TABLE)
    with pytest.raises(ConsoleError) as caught:
        console.has_getty(make_instance("2"), Layout(root.parent))
    assert caught.value.message.startswith(f"{root / TABLE}: {told}")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("line", "asks"), [("console::respawn:/bin/getty", True), ("::respawn:/bin/x", False)]
)
def test_table_of_a_stopped_instance_is_read(root: Path, line: str, *, asks: bool) -> None:
    (root / TABLE).write_text(f"{line}\n", encoding="utf-8")
    assert console.has_getty(make_instance("2"), Layout(root.parent)) is asks


def test_root_that_is_a_link_is_not_entered(root: Path) -> None:
    (root.parent / "nifty3").symlink_to(root)
    with pytest.raises(NotADirectoryError):
        guest.read(Layout(root.parent), "nifty3", TABLE, limit=10)


# Who enters instances' roots, and what guards each. A row is added here only with its guard: no
# link followed, nothing but a regular file opened, a bound on what is read.
ENTER = {
    "backup/save._survey": "scanning: relative to open directories, no links; nothing is opened",
    "backup/save._write": "packing: as surveyed, or told; a regular file of the size surveyed",
    "roots/deploy._rebound": "the root alone, following no link; nothing in it",
    "doctor/facts._slots": "the owner of the name alone, following no link",
    "roots/guest.is_root": "the name alone, following no link",
    "roots/guest.read": "trees: relative to open directories, no links; a regular file, bounded",
    "roots/maker.Maker.publish": "renames roots that were made beside it as a whole",
    "roots/mend.look": "files.read relative to open directories, without links; regular, bounded",
    "roots/mend.mend": "guest.GuestRoot, as upgrade._move; what is read, as mend.look",
    "roots/rebuild.rebuild": "as mend.look, and a list of names",
    "backup/restore._name": "renames a root that was made beside it as a whole",
    "host/status._used": "the root alone, following no link; nothing in it",
    "roots/undeploy.undeploy": "renamed as a whole, then trees.remove",
    "roots/upgrade._change": "guest.GuestRoot: every step by trees, files bounded",
    "roots/upgrade._unstage": "guest.GuestRoot, as upgrade._move",
}
# Paths below the prefix that are the host's own, and text that only names a root.
BESIDE = {
    "state/layout.Layout.root",  # for tests and benchmarks: see below
    "state/layout.Layout.shared",
    "state/layout.Layout.state",
    "state/layout.environment_file",
    "state/layout.mounts_file",
}


def _nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of the host half and of the commands, with the dotted name of its function."""

    def below(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            name = where
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{where}.{child.name}"
            yield name, child
            yield from below(child, name)

    for folder in ("host", "commands"):
        for path in sorted((PROJECT / "pipeline" / folder).rglob("*.py")):
            yield from below(ast.parse(path.read_text("utf-8")), f"{path.parent.name}/{path.stem}")


def _is_prefix(node: ast.AST) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("prefix", "_prefix")


def test_roots_are_entered_by_these_functions_and_no_others() -> None:
    found = set()
    for where, node in _nodes():
        if isinstance(node, ast.Call) and node.args and _is_prefix(node.args[0]):
            function = ast.unparse(node.func)
            if function.rpartition(".")[2] in ("open", "opened", "scandir", "listdir", "walk"):
                found.add(where)
    assert found == set(ENTER)


def test_no_path_leads_into_a_root() -> None:
    found = {
        where
        for where, node in _nodes()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _is_prefix(node.left)
    }
    assert found == BESIDE
    calls = [ast.unparse(node.func) for _, node in _nodes() if isinstance(node, ast.Call)]
    assert [call for call in calls if call.endswith("layout.root")] == []
