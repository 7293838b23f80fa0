"""Unit files and environments: what they say, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import NiftyError
from pipeline.host.binds.rules import Bind, UnitError
from pipeline.host.state.layout import Layout, environment_file
from pipeline.host.state.records import Share, Users
from pipeline.host.units import unit_files
from pipeline.host.units.nspawn import Nspawn
from pipeline.host.units.runner import Launch, Place, Runner, place
from pipeline.host.units.service import Service
from pipeline.host.units.unit_files import UnitFilesError
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from pipeline.host.state.records import Instance

HOME = Path("/home")
ZONEINFO = Bind(source="/usr/share/zoneinfo", target="/usr/share/zoneinfo")
SERVED = ((Nspawn(), ""), (Nspawn(), "7"), (Nspawn(), "1234"))
PROGRAMS = {name: Path("/usr/bin", name) for name in ("systemd-nspawn", "unshare")}


def files(prefix: Path = HOME, program: str = "/usr/bin/systemd-nspawn") -> dict[str, str]:
    wanted = unit_files.wanted(SERVED, prefix, {"systemd-nspawn": Path(program)})
    return {file.name: file.text for file in wanted}


def variables(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def test_files_are_template_nameless_slice_and_target() -> None:
    assert sorted(files()) == ["nifty.service", "nifty.slice", "nifty.target", "nifty@.service"]


def test_nameless_instance_has_the_templates_text() -> None:
    assert files()["nifty.service"] == files()["nifty@.service"]


def test_console_has_the_words_of_the_unit() -> None:
    launch = Launch(base=589824, cbin=HOME / ".nifty/cbin/ab", binds=(ZONEINFO,))
    words = " ".join(Nspawn().foreground(HOME, PROGRAMS, "7", launch))
    started = files()["nifty@.service"].partition("ExecStart=")[2].replace("\\\n    ", "")
    for name, value in Nspawn().variables(launch).items():
        started = started.replace(f"${{{name}}}", value).replace(f"${name}", value)
    started = started.replace("%i", "7").replace("--console=pipe", "--console=interactive")
    assert words == started.partition("\n")[0]


@pytest.mark.parametrize("users", ["no", "589824:65536"])
def test_console_has_users_and_limits_of_the_instance(users: str) -> None:
    base = None if users == "no" else 589824
    words = Nspawn().foreground(HOME, PROGRAMS, "7", Launch(base=base, cbin=None))
    limits = () if base is None else ("--rlimit=NPROC=128", "--rlimit=DATA=512M")
    assert words[8:9] == (f"--private-users={users}",)
    assert tuple(word for word in words if word.startswith("--rlimit")) == limits


@pytest.mark.parametrize("name", sorted(files()))
def test_first_line_says_whose_it_is(name: str) -> None:
    assert files()[name].startswith("# written by nifty for the prefix /home\n")


@pytest.mark.parametrize(
    "line",
    [
        "Slice=nifty.slice",
        "KillMode=mixed",
        "Restart=on-failure",
        "RestartForceExitStatus=133",
        "MemoryAccounting=yes",
        "TasksAccounting=yes",
        "EnvironmentFile=/srv/x/.nifty/units/%i.env",
        "WantedBy=nifty.target",
    ],
)
def test_template_has_the_line(line: str) -> None:
    assert line in files(Path("/srv/x"))["nifty@.service"].splitlines()


@pytest.mark.parametrize(
    "option",
    [
        "--keep-unit",
        "--oci-bundle=/srv/x/.nifty/nspawn",
        "--register=${NIFTY_REGISTER}",
        "--private-users=${NIFTY_USERS}",
        "$NIFTY_BINDS",
        "--kill-signal=SIGUSR2",
        "--directory=/srv/x/nifty%i",
        "--machine=nifty%i",
        "--timezone=off",
    ],
)
def test_nspawn_gets_the_option(option: str) -> None:
    text = files(Path("/srv/x"))["nifty@.service"].replace("\\\n", " ")
    (start,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    assert option in start.split()


def test_nspawn_is_called_where_it_was_found() -> None:
    text = files(program="/opt/bin/systemd-nspawn")["nifty@.service"]
    assert "\nExecStart=/opt/bin/systemd-nspawn " in text


@pytest.mark.parametrize(
    "prefix", ["relative", "/", "/a b", "/a%i", "/a$b", "/a:b", '/a"b', "/a\\b", "/a/../b", "/ä"]
)
def test_prefix_that_means_something_else_to_systemd_is_refused(prefix: str) -> None:
    with pytest.raises(UnitError, match="absolute path"):
        files(Path(prefix))


@pytest.mark.parametrize(
    ("runner", "suffix", "slices", "template"),
    [
        (Nspawn(), "1234", "nifty.slice", "nifty"),
        (Service(), "1234", "nifty.slice/nifty-12.slice", "nifty-service-12"),
        (Service(), "99", "nifty.slice/nifty-0.slice", "nifty-service-0"),
        (Service(), "a-2", "nifty.slice/nifty-named.slice", "nifty-service-named"),
    ],
)
def test_place(runner: Runner, suffix: str, slices: str, template: str) -> None:
    found = place(runner, suffix)
    assert (found.unit, found.file, "/".join(found.slices)) == (
        f"{template}@{suffix}.service",
        f"{template}@.service",
        slices,
    )


@pytest.mark.parametrize(
    ("runner", "slices", "unit"),
    [
        (Nspawn(), ("nifty.slice",), "nifty.service"),
        (Service(), ("nifty.slice", "nifty-service.slice"), "nifty-service.service"),
    ],
)
def test_place_of_the_nameless(runner: Runner, slices: tuple[str, ...], unit: str) -> None:
    assert place(runner, "") == Place(unit=unit, file=unit, slices=slices)


def test_slice_of_the_template_is_where_the_group_is() -> None:
    # %j: what follows the last dash of the unit's name before @ (systemd.unit(5))
    found = place(Service(), "1234")
    template = found.file.partition("@")[0]
    text = Service().service(HOME, PROGRAMS)
    (line,) = (line for line in text.splitlines() if line.startswith("Slice="))
    assert line.replace("%j", template.rpartition("-")[2]) == f"Slice={found.slices[-1]}"


def test_a_file_for_each_hundred_in_use() -> None:
    served = [(Service(), str(number)) for number in (1, 99, 100, 5000)]
    names = {file.name for file in unit_files.wanted(served, HOME, PROGRAMS)}
    assert names == {
        "nifty.slice",
        "nifty.target",
        *(f"nifty-service-{group}@.service" for group in (0, 1, 50)),
    }


def test_every_file_of_ours_is_removed_and_no_other(tmp_path: Path) -> None:
    served: list[tuple[Runner, str]] = [(Service(), "1"), (Service(), "100"), (Nspawn(), "7")]
    wanted = unit_files.wanted(served, HOME, PROGRAMS)
    unit_files.write(wanted, tmp_path)
    others = {"other.service", "nifty-service-x@.service"}
    for name in others:
        (tmp_path / name).write_text("[Service]\n")
    assert set(unit_files.remove(HOME, tmp_path)) == {file.name for file in wanted}
    assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.parametrize("suffix", ["a b", "../x", "a@b", "-a", "a-", "a_b", "%i", "a\n"])
def test_suffix_that_needs_escaping_is_refused(suffix: str) -> None:
    with pytest.raises(UnitError):
        place(Nspawn(), suffix)


def test_environment_file_of_the_template_is_where_environments_lie() -> None:
    text = files()["nifty@.service"].replace("%i", "7")
    assert f"\nEnvironmentFile={environment_file(HOME, '7')}\n" in text


def environment(one: Instance, *binds: Bind) -> str:
    """The text of its environment file."""
    return unit_files.files(one, Layout(HOME), binds)[environment_file(HOME, one.suffix)]


def test_environment_of_a_private_instance() -> None:
    one = make_instance("7", number=7, image="d1")
    text = environment(one, ZONEINFO)
    assert variables(text) == {
        "NIFTY_USERS": "983040:65536",
        "NIFTY_REGISTER": "no",
        "NIFTY_LIMITS": "--rlimit=NPROC=128 --rlimit=DATA=512M",
        "NIFTY_BINDS": (
            "--bind-ro=/home/cbin/d1:/cbin --bind-ro=/usr/share/zoneinfo:/usr/share/zoneinfo"
        ),
    }


def test_environment_without_shared_programs_binds_none() -> None:
    one = make_instance("7", share=Share.NONE)
    assert variables(environment(one))["NIFTY_BINDS"] == ""


def test_environment_with_the_hosts_users() -> None:
    one = make_instance("7", users=Users.HOST)
    told = variables(environment(one))
    assert (told["NIFTY_USERS"], told["NIFTY_LIMITS"]) == ("no", "")


def test_environment_of_a_registered_instance() -> None:
    text = environment(replace(make_instance("7"), register=True))
    assert variables(text)["NIFTY_REGISTER"] == "yes"


@pytest.mark.parametrize(
    "source",
    ["/", "/root", "/etc", "/var/lib", "/usr/share", "/usr/share/../../root", "/usr/lib x", "usr"],
)
def test_bind_of_more_than_libraries_and_data_is_refused(source: str) -> None:
    with pytest.raises(UnitError):
        environment(make_instance("7"), Bind(source=source, target="/x"))


@pytest.mark.parametrize("target", ["/x --bind=/:/y", "/x:y", "x", "/x\nNIFTY_USERS=no"])
def test_bind_target_cannot_smuggle_in_an_option(target: str) -> None:
    with pytest.raises(UnitError):
        environment(make_instance("7"), Bind(source="/usr/lib64", target=target))


@pytest.mark.parametrize("source", ["/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/share/zoneinfo"])
def test_bind_of_libraries_and_data_is_granted(source: str) -> None:
    bind = Bind(source=source, target="/x")
    assert source in environment(make_instance("7"), bind)


def written(directory: Path, prefix: Path = HOME) -> None:
    unit_files.write(
        unit_files.changes(unit_files.wanted(SERVED, prefix, PROGRAMS), directory), directory
    )


def test_written_files_are_as_wanted(tmp_path: Path) -> None:
    written(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files()


def test_nothing_changes_the_second_time(tmp_path: Path) -> None:
    written(tmp_path)
    assert unit_files.changes(unit_files.wanted(SERVED, HOME, PROGRAMS), tmp_path) == ()


def test_older_text_of_ours_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "nifty.slice").write_text("# written by nifty for the prefix /home\nold\n")
    written(tmp_path)
    assert (tmp_path / "nifty.slice").read_text() == files()["nifty.slice"]


def test_foreign_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "nifty.slice").write_text("[Slice]\n")
    with pytest.raises(UnitFilesError, match=r"/nifty\.slice: there already"):
        written(tmp_path)


def test_masked_unit_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "nifty@.service").symlink_to("/dev/null")
    with pytest.raises(UnitFilesError, match=r"nifty@\.service"):
        written(tmp_path)


def test_second_prefix_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UnitFilesError, match="already has instances below /home"):
        written(tmp_path, Path("/srv"))


def test_remove_takes_all_of_ours(tmp_path: Path) -> None:
    written(tmp_path)
    unit_files.remove(HOME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_remove_leaves_everything_when_one_is_foreign(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "nifty.target").write_text("[Unit]\n")
    with pytest.raises(UnitFilesError):
        unit_files.remove(HOME, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_remove_leaves_another_prefixs(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UnitFilesError, match="/home"):
        unit_files.remove(Path("/srv"), tmp_path)


def test_directory_that_cannot_be_written_is_an_expected_error(tmp_path: Path) -> None:
    with pytest.raises(NiftyError, match=r"nifty\.slice"):
        written(tmp_path / "missing")
