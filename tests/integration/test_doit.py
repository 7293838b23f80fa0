"""doit as its users meet it: what runs again and what does not, messages, exit codes, users."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess  # noqa: TID251 (what is timed is the process itself)
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tiny import repatch, replace_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.run import Completed
    from tests.support.checkouts import Checkout

pytestmark = pytest.mark.integration
pytest_plugins = ["tests.support.checkouts"]

IMAGE = "nifty-x86_64"


def titles(done: Completed) -> list[str]:
    """The tasks that did something, as doit told them on stderr."""
    return [line[3:] for line in done.stderr.splitlines() if line.startswith(".  ")]


@pytest.fixture
def built(tiny: Checkout) -> Checkout:
    """The tiny checkout after its first build."""
    tiny.doit("build", "arch=x86_64")
    return tiny


# ----- what runs again


def test_the_first_build_does_everything_in_order(tiny: Checkout) -> None:
    assert titles(tiny.doit("build", "arch=x86_64")) == [
        "check recipes",
        "look for what compiling needs",
        "fetch alpha 1",
        "fetch beta 1",
        "compile alpha 1, beta 1 for x86_64",
        f"assemble and pack {IMAGE}",
        "write SHA256SUMS",
    ]


def test_an_unchanged_build_does_nothing(built: Checkout) -> None:
    assert titles(built.doit("build", "arch=x86_64")) == []


def test_doit_alone_builds(built: Checkout) -> None:
    before = built.sums()
    shutil.rmtree(built.artifacts / "components")
    (built.artifacts / "SHA256SUMS").unlink()
    built.doit("arch=x86_64")
    assert built.sums() == before


def test_a_touched_recipe_is_not_a_changed_one(built: Checkout) -> None:
    for path in (built.root / "recipes").rglob("*"):
        path.touch()
    assert titles(built.doit("build", "arch=x86_64")) == []


def test_results_are_on_stdout_and_messages_on_stderr(tiny: Checkout) -> None:
    done = tiny.doit("build", "arch=x86_64")
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        f"artifacts/{IMAGE}{ending}" for ending in (".tar.zst", ".tar.xz", ".json")
    ]
    assert [line for line in done.stderr.splitlines() if not line.startswith(".  ")] == []


@pytest.mark.parametrize("ending", [".tar.zst", ".tar.xz", ".json"])
def test_a_deleted_artifact_comes_back_the_same(built: Checkout, ending: str) -> None:
    path = built.artifacts / f"{IMAGE}{ending}"
    before = path.read_bytes()
    path.unlink()
    assert titles(built.doit("build", "arch=x86_64")) == [f"assemble and pack {IMAGE}"]
    assert path.read_bytes() == before


def test_deleted_checksums_come_back_alone(built: Checkout) -> None:
    before = built.sums()
    (built.artifacts / "SHA256SUMS").unlink()
    assert titles(built.doit("build", "arch=x86_64")) == ["write SHA256SUMS"]
    assert built.sums() == before


def test_a_damaged_artifact_is_made_again_and_not_put_into_the_checksums(built: Checkout) -> None:
    before = built.sums()
    with (built.artifacts / f"{IMAGE}.tar.zst").open("ab") as file:
        file.write(b"x")
    built.doit("build", "arch=x86_64")
    assert built.sums() == before
    content = (built.artifacts / f"{IMAGE}.tar.zst").read_bytes()
    assert hashlib.sha256(content).hexdigest() == before[f"{IMAGE}.tar.zst"]


def test_a_changed_patch_rebuilds_that_component_and_the_image(built: Checkout) -> None:
    repatch(built.root, "beta", "number two", "number three")
    assert titles(built.doit("build", "arch=x86_64")) == [
        "check recipes",
        "look for what compiling needs",
        "fetch beta 1",
        "compile beta 1 for x86_64",
        f"assemble and pack {IMAGE}",
        "write SHA256SUMS",
    ]
    binary = built.artifacts / "components" / "x86_64" / "beta" / "beta"
    assert b"hello number three" in binary.read_bytes()


def test_a_changed_config_rebuilds_that_component_and_the_image(built: Checkout) -> None:
    replace_once(built.root / "recipes/components/alpha/config.h", "hello", "goodbye")
    assert "compile alpha 1 for x86_64" in titles(done := built.doit("build", "arch=x86_64"))
    assert "compile beta 1 for x86_64" not in titles(done)


def test_a_changed_image_recipe_compiles_nothing(built: Checkout) -> None:
    before = built.sums()
    replace_once(
        built.root / "recipes/images/nifty.toml", 'hostname = "nifty"', 'hostname = "other"'
    )
    assert titles(built.doit("build", "arch=x86_64")) == [
        "check recipes",
        f"assemble and pack {IMAGE}",
        "write SHA256SUMS",
    ]
    assert built.sums() != before


def test_a_change_taken_back_compiles_nothing(built: Checkout) -> None:
    before = built.sums()
    repatch(built.root, "beta", "number two", "number three")
    built.doit("build", "arch=x86_64")
    built.log("beta").unlink()
    repatch(built.root, "beta", "number three", "number two")
    built.doit("build", "arch=x86_64")
    assert built.sums() == before
    assert not built.log("beta").exists()


def test_without_its_database_doit_compiles_nothing(built: Checkout) -> None:
    before = built.sums()
    for path in built.artifacts.glob("state-*"):
        shutil.rmtree(path)
    built.log("alpha").unlink()
    assert titles(built.doit("build", "arch=x86_64")) != []
    assert built.sums() == before
    assert not built.log("alpha").exists()


def test_two_images_in_turn_do_not_undo_each_other(built: Checkout) -> None:
    images = built.root / "recipes" / "images"
    text = (images / "nifty.toml").read_text()
    (images / "second.toml").write_text(text.replace('name = "nifty"', 'name = "second"', 1))
    for _ in range(2):
        built.doit("build", "arch=x86_64")
        built.doit("build", "image=second", "arch=x86_64")
    assert titles(built.doit("build", "arch=x86_64")) == []
    assert titles(built.doit("build", "image=second", "arch=x86_64")) == []
    assert len(built.sums()) == 6


# ----- damage


def only(paths: Sequence[Path]) -> Path:
    (path,) = paths
    return path


@pytest.mark.parametrize("file", ["alpha", "component.json"])
def test_a_damaged_cached_binary_is_noticed_and_made_again(built: Checkout, file: str) -> None:
    before = built.sums()
    cached = only(list((built.cache / "compiled").glob("*/alpha"))).parent / file
    cached.write_bytes(cached.read_bytes().replace(b"sh", b"hs").replace(b"hello", b"jello"))
    built.doit("clean")
    done = built.doit("build", "arch=x86_64")
    assert f"{cached.parent}: damaged, making alpha again" in done.stderr
    assert built.sums() == before


def test_a_cached_component_without_its_record_is_made_again(built: Checkout) -> None:
    before = built.sums()
    (only(list((built.cache / "compiled").glob("*/alpha"))).parent / "component.json").unlink()
    built.doit("clean")
    built.doit("build", "arch=x86_64")
    assert built.sums() == before


def test_a_damaged_stored_file_is_named_and_not_used(built: Checkout) -> None:
    stored = only(list((built.artifacts / "store").glob("*-alpha-1.tar")))
    stored.write_bytes(stored.read_bytes()[:-1])
    done = built.doit("fetch", "offline=yes", code=1)
    assert f"{stored}: has gone bad" in done.stderr
    assert "the store" in done.stderr.split("error: ")[1]


# ----- commands and options


@pytest.mark.parametrize("options", [("-n", "2"), ("-n", "2", "-P", "thread")])
def test_several_tasks_at_a_time_give_the_same_image(
    built: Checkout, options: tuple[str, ...]
) -> None:
    before = built.sums()
    built.doit("clean")
    shutil.rmtree(built.cache / "compiled")
    done = built.doit(*options, "build", "arch=x86_64")
    assert built.sums() == before
    assert len(done.stdout.splitlines()) == 3


def test_clean_removes_what_the_build_made_and_keeps_the_caches(built: Checkout) -> None:
    before = built.sums()
    built.doit("clean")
    left = {path.name for path in built.artifacts.iterdir() if not path.name.startswith("state")}
    assert left == {"cache", "components", "store"}
    assert [path for path in (built.artifacts / "components").rglob("*") if path.is_file()] == []
    built.log("alpha").unlink()
    built.doit("build", "arch=x86_64")
    assert built.sums() == before
    assert not built.log("alpha").exists()


def test_forget_makes_doit_look_again_and_compiles_nothing(built: Checkout) -> None:
    before = built.sums()
    built.log("alpha").unlink()
    built.doit("forget", "-a")
    assert "check recipes" in titles(built.doit("build", "arch=x86_64"))
    assert built.sums() == before
    assert not built.log("alpha").exists()


def test_list_works_on_a_bare_checkout(tiny: Checkout) -> None:
    shutil.rmtree(tiny.artifacts)
    listed = {line.split()[0] for line in tiny.doit("list").stdout.splitlines()}
    assert {"build", "component", "fetch", "image", "inspect", "outdated", "recipes"} <= listed


def test_every_task_tells_what_it_is_for(tiny: Checkout) -> None:
    assert [line for line in tiny.doit("list").stdout.splitlines() if len(line.split()) < 3] == []


def test_help_of_build_names_its_variables(tiny: Checkout) -> None:
    assert "image=" in tiny.doit("help", "build").stdout


# ----- exit codes


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["build", "imge=nifty"], "imge=nifty: no such variable; did you mean image=?"),
        (["build", "jobs=many"], "jobs=many: expected a whole number"),
        (["build", "image=nifti"], "did you mean 'nifty'?"),
        (["build", "offline=maybe"], "offline=maybe: expected yes or no"),
        (["component:alpha", "jbos=2"], "did you mean jobs=?"),
        (["fetch", "oflfine=yes"], "did you mean offline=?"),
    ],
)
def test_a_wrong_variable_is_bad_usage(tiny: Checkout, words: list[str], named: str) -> None:
    done = tiny.doit(*words, code=2)
    assert named in done.stderr
    assert titles(done) == []
    assert done.stdout == ""


def test_every_wrong_variable_is_named_at_once(tiny: Checkout) -> None:
    told = tiny.doit("imge=nifty", "jobs=0", code=2).stderr
    assert "imge=nifty" in told
    assert "jobs=0" in told


def test_an_unknown_task_cannot_be_loaded(tiny: Checkout) -> None:
    for words in (["bulid"], ["-n", "2", "bulid"], ["list", "bulid"], ["info", "bulid"]):
        told = tiny.doit(*words, code=3).stderr
        assert told == "ERROR: 'bulid' is no task; did you mean 'build'?\nhint: doit list\n"
    assert "'lst' is no task; did you mean 'list'?" in tiny.doit("lst", code=3).stderr
    assert "fetch has no part 'alhpa'" in tiny.doit("fetch:alhpa", code=3).stderr


def test_a_broken_dodo_file_cannot_be_loaded(tiny: Checkout) -> None:
    with (tiny.root / "dodo.py").open("a") as file:
        file.write("no_such_name\n")
    assert "no_such_name" in tiny.doit("list", code=3).stderr


def test_broken_recipes_are_told_all_at_once(tiny: Checkout) -> None:
    replace_once(tiny.root / "recipes/components/alpha/recipe.toml", "licence =", "license =")
    (tiny.root / "recipes/components/beta/recipe.toml").write_text("name = [\n")
    replace_once(tiny.root / "recipes/images/nifty.toml", "hostname", "hostnme")
    done = tiny.doit("build", code=1)
    assert "components/alpha/recipe.toml: license: unknown key; did you mean 'licence'?" in (
        done.stderr
    )
    assert "components/beta/recipe.toml: not TOML" in done.stderr
    assert "images/nifty.toml: hostnme: unknown key; did you mean 'hostname'?" in done.stderr
    assert titles(done) == ["check recipes"]


def break_others(checkout: Checkout) -> None:
    """Recipes with mistakes, of images that are not built."""
    images = checkout.root / "recipes" / "images"
    (images / "mine.toml").write_text('name = "mine"\nhostnme = "x"\ncomponents = ["none-such"]\n')
    (images / "second.toml").write_text("name = [\n")
    os.mkfifo(images / "third.toml")
    (images.parent / "components" / "gamma").mkdir()
    (images.parent / "components" / "gamma" / "recipe.toml").write_text('name = "gamma"\n')


def test_a_mistake_in_another_image_s_recipe_does_not_stop_the_one_asked_for(
    tiny: Checkout,
) -> None:
    break_others(tiny)
    done = tiny.doit("build", "image=nifty", "arch=x86_64")
    assert re.search(r"(?m)^\d+ problems in recipes of other images: doit recipes$", done.stderr)
    assert len(done.stdout.splitlines()) == 3
    assert tiny.doit("list").returncode == 0
    assert tiny.doit("inspect", "arch=x86_64").stdout.startswith("binary ")


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_build_of_all_makes_what_is_right_and_tells_every_mistake(
    tiny: Checkout, options: tuple[str, ...]
) -> None:
    break_others(tiny)
    done = tiny.doit(*options, "build", "arch=x86_64", code=1)
    assert len(done.stdout.splitlines()) == 3
    for named in (
        "images/mine.toml: hostnme: unknown key",
        "images/second.toml: not TOML",
        "images/third.toml: not a regular file",
        "components/gamma/recipe.toml: version: missing",
    ):
        assert done.stderr.count(f"recipes/{named}") == 1
    assert tiny.doit("recipes", code=1).stderr.splitlines()[1:] == [
        line for line in done.stderr.splitlines() if not line.startswith(".  ")
    ]


def test_an_image_with_a_mistake_tells_those_of_all(tiny: Checkout) -> None:
    break_others(tiny)
    told = tiny.doit("build", "image=mine", code=1).stderr
    assert "images/mine.toml: hostnme: unknown key" in told
    assert "images/second.toml: not TOML" in told


@pytest.mark.parametrize(
    "odd", ["a=b", "a\\u0000b", "x" * 300, "../../..", "nifty", "a b", "*", ""]
)
def test_no_name_in_a_recipe_keeps_doit_from_loading(tiny: Checkout, odd: str) -> None:
    text = f'name = "mine"\ncomponents = ["{odd}", "{odd}", "alpha", "alpha"]\n'
    (tiny.root / "recipes" / "images" / "mine.toml").write_text(
        f'{text}[[package]]\nname = "{odd}"\n[[package]]\nname = "{odd}"\n'
    )
    told = tiny.doit("build", "image=mine", code=1).stderr
    assert "recipes/images/mine.toml: hostname: missing" in told


def test_an_empty_store_and_no_network_name_all_that_is_missing(tiny: Checkout) -> None:
    shutil.rmtree(tiny.artifacts / "store")
    told = tiny.doit("fetch", "offline=yes", code=1).stderr
    assert "lacks 2 files" in told
    assert "alpha-1.tar of alpha" in told
    assert "beta-1.tar of beta" in told


def test_a_failed_compilation_shows_the_last_lines_and_the_log(tiny: Checkout) -> None:
    (tiny.root / "recipes/components/alpha/config.h").write_text("#error no such greeting\n")
    done = tiny.doit("build", "arch=x86_64", code=1)
    assert "alpha 1 does not compile" in done.stderr
    assert "no such greeting" in done.stderr
    assert f"the whole output: {tiny.log('alpha')}" in done.stderr
    assert "no such greeting" in tiny.log("alpha").read_text()


def test_a_patch_that_does_not_fit_is_named_with_its_place(tiny: Checkout) -> None:
    repatch(tiny.root, "alpha", "int main(void)", "int main(int n)")
    told = tiny.doit("build", "arch=x86_64", code=1).stderr
    assert "error: alpha/number.patch: alpha.c: hunk 1 (line 2) fits nowhere" in told


def test_an_exceeded_budget_names_the_number_and_the_limit(tiny: Checkout) -> None:
    replace_once(
        tiny.root / "recipes/components/alpha/recipe.toml", "file = 100_000", "file = 1_234"
    )
    told = tiny.doit("build", "arch=x86_64", code=1).stderr
    assert re.search(r"alpha: the file has [\d,]+ bytes, the limit is 1,234", told)
    assert "recipes/components/alpha/recipe.toml" in told


# ----- at the same time, and interrupted


def start(checkout: Checkout, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        checkout.argv(*words),
        cwd=checkout.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def set_pause(checkout: Checkout, seconds: int) -> None:
    """Make compiling alpha last longer."""
    recipe = checkout.root / "recipes/components/alpha/recipe.toml"
    replace_once(recipe, '"WAIT=0"', f'"WAIT={seconds}"')


def test_two_builds_at_the_same_time_compile_once(tiny: Checkout) -> None:
    set_pause(tiny, 1)
    processes = [start(tiny, "build", "arch=x86_64") for _ in range(2)]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert tiny.log("alpha").read_text().count("cc -Oz") == 1
    assert titles(tiny.doit("build", "arch=x86_64")) == []


def wait_until_it_compiles(checkout: Checkout, process: subprocess.Popen[str]) -> None:
    while not (checkout.log("alpha").is_file() and "sleep" in checkout.log("alpha").read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.5)  # until Popen has returned: a signal before that finds no process to end


def processes_in(folder: Path) -> list[str]:
    """The processes that work in *folder*, which a test must not leave behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(path)).is_relative_to(folder):  # noqa: PTH115 ("(deleted)" stays)
                found.append((path.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGINT, ("-n", "2"))],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C with -n 2"],
)
def test_an_interrupted_build_leaves_nothing_half_done(
    tiny: Checkout, number: signal.Signals, options: tuple[str, ...]
) -> None:
    set_pause(tiny, 600)
    process = start(tiny, *options, "build", "arch=x86_64")
    wait_until_it_compiles(tiny, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to everyone
    else:
        process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT
    assert told.splitlines()[-1] == "interrupted"
    assert "Traceback" not in told
    assert [path for path in tiny.artifacts.rglob(".*") if path.name != ".lock"] == []
    assert list((tiny.cache / "work").rglob("*/*")) == []
    assert list((tiny.cache / "compiled").glob("*/alpha")) == []
    assert processes_in(tiny.root) == []


@pytest.mark.parametrize(
    ("options", "everyone"),
    [((), True), ((), False), (("-n", "2"), True), (("-n", "2"), False)],
    ids=["process group", "doit alone", "process group with -n 2", "doit alone with -n 2"],
)
def test_nothing_of_a_killed_build_goes_on(
    tiny: Checkout, options: tuple[str, ...], *, everyone: bool
) -> None:
    set_pause(tiny, 600)
    process = start(tiny, *options, "build", "arch=x86_64")
    wait_until_it_compiles(tiny, process)
    assert [line for line in processes_in(tiny.root) if line.startswith("sleep")] != []
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    until = time.monotonic() + 60
    while (left := processes_in(tiny.root)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


def test_what_was_done_before_an_interruption_is_remembered(tiny: Checkout) -> None:
    set_pause(tiny, 600)
    process = start(tiny, "build", "arch=x86_64")
    wait_until_it_compiles(tiny, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    replace_once(tiny.root / "recipes/components/alpha/recipe.toml", '"WAIT=600"', '"WAIT=0"')
    assert "fetch beta 1" not in titles(tiny.doit("build", "arch=x86_64"))


def test_what_a_killed_build_left_is_cleared_away(tiny: Checkout) -> None:
    left = tiny.cache / "work" / "alpha" / "alpha-killed" / "source"
    left.mkdir(parents=True)
    elsewhere = tiny.root.with_name("nifty-beta-killed")
    (elsewhere / "source").mkdir(parents=True)
    (tiny.cache / "work" / "beta").mkdir()
    (tiny.cache / "work" / "beta" / "elsewhere").symlink_to(elsewhere)
    tiny.doit("build", "arch=x86_64")
    assert not elsewhere.exists()
    assert [path.name for path in (tiny.cache / "work").iterdir() if path.is_dir()] == []


def test_what_a_build_left_that_was_killed_at_its_end_is_cleared_away(built: Checkout) -> None:
    left = built.cache / "work" / "alpha" / "alpha-killed"
    left.mkdir(parents=True)
    (built.artifacts / "components" / "x86_64" / "alpha" / "component.json").unlink()
    built.log("alpha").unlink()
    built.doit("build", "arch=x86_64")
    assert not left.parent.exists()
    assert not built.log("alpha").exists()


# ----- users and places


# What make, configure, a shell or zig read as their own, alone and together.
ODD = ("my projects (new)", "a\\b", 'a b"c', "a\nb", "$HOME#:=%; 'ä' & \t*")


@pytest.mark.parametrize("name", ODD)
def test_a_checkout_builds_whatever_its_folder_is_called(tiny: Checkout, name: str) -> None:
    odd = tiny.root.with_name(name)
    tiny.root.rename(odd)
    moved = type(tiny)(root=odd)
    moved.doit("build", "arch=x86_64")
    assert set(moved.sums()) == {f"{IMAGE}{end}" for end in (".tar.zst", ".tar.xz", ".json")}


def test_another_user_can_list_the_tasks_of_a_checkout(
    built: Checkout, as_stranger: tuple[str, ...]
) -> None:
    done = built.doit("list", prefix=as_stranger)
    assert "build" in done.stdout
    assert done.stderr == ""


def test_another_user_is_told_why_a_foreign_checkout_cannot_be_built_in(
    built: Checkout, as_stranger: tuple[str, ...]
) -> None:
    done = built.doit("build", "arch=x86_64", prefix=as_stranger, code=1)
    assert re.search(r"error: .*/artifacts/.*: Permission denied", done.stderr)
    assert "hint: build as the user who owns artifacts/" in done.stderr


def test_roots_database_is_not_in_the_way_of_the_owner(
    tiny: Checkout, as_stranger: tuple[str, ...]
) -> None:
    owner = int(as_stranger[1].removeprefix("--reuid="))
    for path in (tiny.root, *tiny.root.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    tiny.doit("recipes", umask=0o077)
    assert titles(tiny.doit("recipes", prefix=as_stranger)) == ["check recipes"]
    assert titles(tiny.doit("recipes", prefix=as_stranger)) == []
