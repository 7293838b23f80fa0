"""What stands between the program and doit: its database, and failures that are no bugs."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from doit.exceptions import TaskFailed

from pipeline.commands import ready, recipes
from pipeline.errors import UsageError
from pipeline.settings import Settings, parse
from pipeline.tasks import actions, build, database
from pipeline.tasks.actions import action

if TYPE_CHECKING:
    from pathlib import Path


def table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table doit (task_id text)")


def test_a_whole_database_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "doit.sqlite3"
    table(path)
    before = path.read_bytes()
    database._drop_if_damaged(path)
    assert path.read_bytes() == before


def test_a_damaged_database_is_told_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "doit.sqlite3"
    path.write_bytes(b"no database " * 100)
    database._drop_if_damaged(path)
    assert not path.exists()
    assert "doit.sqlite3: damaged; removed" in capsys.readouterr().err


def test_a_database_that_another_run_holds_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "doit.sqlite3"
    table(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("begin exclusive")
        database._drop_if_damaged(path)
    assert path.exists()


def test_a_missing_wheel_is_named_with_what_to_type() -> None:
    @action
    def needs_a_wheel() -> None:
        import a_wheel_nobody_has.part  # type: ignore[import-not-found]  # noqa: F401, PLC0415

    result = needs_a_wheel()
    assert isinstance(result, TaskFailed)
    assert result.message.startswith("a_wheel_nobody_has is not installed in ")
    assert "hint: pip install -e" in result.message


def test_doctor_is_advised_with_all_that_was_typed() -> None:
    words = {"count": "3", "first": "4", "start": "yes", "runner": "service", "users": "host",
             "port": "70", "image": "/a b/x.tar.zst"}  # fmt: skip
    assert ready.typed(parse(words, images=())) == (
        *("count=3", "first=4", "runner=service", "users=host", "port=70"),
        "image='/a b/x.tar.zst'",
    )


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    @action
    def broken() -> None:
        import pipeline.nowhere  # type: ignore[import-not-found]  # noqa: F401, PLC0415

    with pytest.raises(ModuleNotFoundError):
        broken()


def test_without_a_checkout_nothing_is_built_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actions, "HAS_CHECKOUT", False)

    @action
    def builds() -> None:
        raise ModuleNotFoundError("no", name="pipeline.builder.sources")

    @action
    def fills() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/home/nifty1")

    assert isinstance(told := builds(), TaskFailed)
    assert told.message == (
        "that needs what builds images (pipeline.builder.sources)\n"
        "hint: type it in a checkout of nifty"
    )
    assert isinstance(told := fills(), TaskFailed)
    assert told.message.endswith("\nhint: make room on that file system")


def test_what_is_published_for_other_architectures_is_built_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already; nothing is published as it lies."""
    monkeypatch.setattr(
        build, "artifacts", lambda one: [tmp_path / f"{one.image}-{one.arch}.tar.zst"] * 3
    )
    settings = Settings(arch="x86_64")
    (alone,) = build.publish(settings)
    assert (alone["basename"], alone["task_dep"]) == ("publish", ["image"])
    (tmp_path / "nifty-aarch64.tar.zst").touch()
    made = {task["basename"]: task for task in build.publish(settings)}
    assert made["publish"]["task_dep"] == ["image", "_image:nifty-aarch64"]
    needs = made["_image:nifty-aarch64"]["task_dep"]
    assert [name for name in needs if name in made] == ["_component:nifty-aarch64"]
    needs = made["_component:nifty-aarch64"]["task_dep"]
    assert [name for name in needs if name in made] == ["_tools:nifty-aarch64"]
    ((_action, (asked,)),) = made["_image:nifty-aarch64"]["actions"]
    assert asked.arch == "aarch64"


def test_an_image_whose_recipe_has_gone_is_no_bug() -> None:
    known = replace(recipes.load(), problems=("recipes/images/mine.toml: not TOML",))
    with pytest.raises(
        UsageError, match=r"no recipes/images/gone\.toml; there are: nifty"
    ) as caught:
        recipes.chosen(known, Settings(image="gone"))
    assert caught.value.hint is not None


def test_a_recipe_nested_too_deep_is_left_to_the_task_that_reports_it(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f"x = {'[' * 9999}{']' * 9999}")
    assert build._toml(path) == {}
