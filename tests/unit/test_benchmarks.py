"""What the benchmarks compute and refuse; no time is measured here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from benchmarks import filesystems, image, inside, options, peers, results, start
from benchmarks import fit as fitting
from benchmarks.fit import Verdict, fit
from benchmarks.options import Options, OptionsError
from pipeline.commands import bench
from pipeline.errors import NiftyError
from pipeline.host.state.layout import Layout
from pipeline.paths import PROJECT
from pipeline.run import CLEAN_ENVIRONMENT, run
from pipeline.settings import Settings, VariablesError, parse

if TYPE_CHECKING:
    from pathlib import Path

DECADES = (10, 100, 1000, 10000)


def test_a_straight_line_is_found() -> None:
    found = fit({count: 0.005 + 0.0005 * count for count in DECADES})
    assert found is not None
    assert found.slope == pytest.approx(0.0005)
    assert found.intercept == pytest.approx(0.005)
    assert found.r2 == pytest.approx(1.0)
    assert found.ratio == pytest.approx(1.0)
    assert found.base == 100
    assert found.verdict is Verdict.LINEAR


def test_the_line_is_the_least_squares_one() -> None:
    # by hand: mean (2, 5/3), slope 1/2, intercept 2/3; rest 1/6 of 2/3
    found = fit({1: 1.0, 2: 2.0, 3: 2.0})
    assert found is not None
    assert found.slope == pytest.approx(0.5)
    assert found.intercept == pytest.approx(2 / 3)
    assert found.r2 == pytest.approx(0.75)


def test_a_cost_that_is_fixed_at_first_is_no_growth() -> None:
    found = fit({10: 0.5, 100: 0.52, 1000: 0.7, 10000: 2.5})
    assert found is not None
    assert found.base is None  # at 1000 most is still fixed: there is nothing to compare with
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ({count: 1e-6 * count**2 for count in DECADES}, Verdict.FASTER),
        ({count: 0.01 * count**0.5 for count in DECADES}, Verdict.SLOWER),
        ({10: 1.0, 100: 10.0}, Verdict.UNKNOWN),
        ({10: 1.0, 15: 6.0, 20: 5.0, 25: 20.0, 30: 14.0, 35: 26.0}, Verdict.SCATTERED),
    ],
)
def test_the_verdict_is_computed(points: dict[int, float], verdict: Verdict) -> None:
    found = fit(points)
    assert found is not None
    assert found.verdict is verdict


def test_one_count_makes_no_line() -> None:
    assert fit({10: 1.0}) is None


def test_the_criterion_names_its_numbers() -> None:
    assert str(fitting.R2_AT_LEAST) in fitting.CRITERION
    assert str(fitting.RATIO_AT_MOST) in fitting.CRITERION


def test_noise_is_least_middle_and_most() -> None:
    one = results.spread([3.0, 1.0, 8.0], factor=10)
    assert (one.low, one.middle, one.high) == (10, 30, 80)
    assert one.text(1) == "30.0 (10.0-80.0)"


def test_columns_are_aligned() -> None:
    assert results.table(("", "ms"), [("a", "1.0"), ("long", "22.0")]) == [
        "        ms", "a      1.0", "long  22.0",
    ]  # fmt: skip


def test_the_machine_is_described() -> None:
    found = results.machine()
    assert set(found) == {"cpu", "cores", "memory_bytes", "kernel", "system", "python", "systemd"}
    assert found["cores"] >= 1


def test_slow_peers_are_not_run_at_high_counts() -> None:
    assert peers.EXTRACT in peers.peers_on("ext4", 1000)
    assert peers.EXTRACT not in peers.peers_on("ext4", 1001)
    assert peers.SNAPSHOT not in peers.peers_on("ext4", 10)
    assert peers.SNAPSHOT in peers.peers_on("btrfs", 10)


def test_what_is_scaled_says_so() -> None:
    assert peers.measured_count(peers.ARTICLE, 10000) == 100
    assert peers.measured_count(peers.NIFTY, 10000) == 10000


def packed(folder: Path) -> Path:
    path = folder / "tiny.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"\0" * 10240))
    return path


@pytest.mark.skipif(shutil.which("xz") is None, reason="no xz here")
def test_the_image_s_bytes_are_counted_beside_other_packings(tmp_path: Path) -> None:
    given = Options(parts=("image",), image=packed(tmp_path))
    found = image.measure(given)
    sizes = {row["what"]: row["bytes"] for row in found["rows"]}
    assert sizes["tar"] == 10240
    assert sizes[".tar.zst"] == given.image.stat().st_size
    assert {"tar, gzip -9", "tar, xz -9e", image.OFFICIAL} < set(sizes)
    assert len(image.lines(found)) == len(found["rows"]) + 1
    written = results.write_json(tmp_path / "bench", found)
    assert json.loads(written.read_text("utf-8"))["rows"] == found["rows"]


def test_an_archive_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.tar.zst"
    path.write_bytes(b"nothing")
    with pytest.raises(NiftyError, match=r"broken\.tar\.zst: "):
        image.measure(Options(parts=("image",), image=path))


def test_an_ordinary_user_measures_what_needs_no_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = options.chosen(image=packed(tmp_path))
    assert found.parts == ("build", "image")
    assert found.notes == ("left out: deploy, start, which need root",)
    with pytest.raises(OptionsError, match="measuring deploy needs root"):
        options.chosen(image=packed(tmp_path), parts=("deploy",))


def test_an_image_that_is_not_built_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="not built yet"):
        options.chosen(image=tmp_path / "none", parts=("image",))


def test_a_folder_for_large_files_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with pytest.raises(filesystems.FilesystemError, match="No such file or directory"):
        filesystems.check_room(10, ("ext4",))
    filesystems.check_room(10, ("tmpfs",))


def test_counts_are_sorted_and_once(tmp_path: Path) -> None:
    found = options.chosen(image=packed(tmp_path), parts=("image",), counts=(100, 10, 100))
    assert found.counts == (10, 100)


def test_somebody_s_instances_are_not_measured(tmp_path: Path) -> None:
    inside.refuse(Layout(tmp_path), directory=tmp_path / "units")
    (tmp_path / "nifty7").mkdir()
    with pytest.raises(inside.StartError, match="deployed on this host already"):
        inside.refuse(Layout(tmp_path), directory=tmp_path / "units")


def test_units_of_another_prefix_are_not_measured_either(tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    (units / "nifty@.service").touch()
    with pytest.raises(inside.StartError, match="deployed on this host already"):
        inside.refuse(Layout(tmp_path / "prefix"), directory=units)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("parts", "build,deplay", "did you mean 'deploy'?"),
        ("on", "zfs", "tmpfs or ext4 or xfs or btrfs"),
        ("counts", "10,,100", "a whole number from 1 to 63335"),
        ("rounds", "0", "a whole number from 1 to 100"),
    ],
)
def test_an_impossible_variable_says_what_is_possible(name: str, value: str, expected: str) -> None:
    with pytest.raises(VariablesError) as caught:
        parse({name: value}, images=())
    assert expected in caught.value.problems[0]


def test_the_task_hands_its_variables_on() -> None:
    given = Settings(arch="x86_64", parts=("deploy",), counts=(10, 20), on=("xfs",), rounds=2)
    image_path = PROJECT / "artifacts" / "nifty-x86_64.tar.zst"
    assert [str(word) for word in bench.words(given)] == [
        sys.executable, "-m", "benchmarks", "--image", str(image_path),
        "--prefix", "/home", "--rounds", "2",
        "--parts", "deploy", "--counts", "10,20", "--on", "xfs",
    ]  # fmt: skip


_ELSEWHERE = """
import sys
from pipeline.commands import bench
from pipeline.settings import Settings
bench.run(Settings(parts=("image",), image=sys.argv[1]))
"""


def test_the_benchmarks_are_found_from_any_folder(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _ELSEWHERE, "here/none.tar.zst"]
    done = run(argv, cwd=tmp_path, env=CLEAN_ENVIRONMENT, check=False)
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/here/none.tar.zst: not built yet",
        "hint: doit build, as an ordinary user; or image=PATH",
    ]
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("count", "ways"), [(10, ["nspawn", "service", "loop"]), (10**8, []), (10**9, [])]
)
def test_what_the_host_has_no_room_for_is_left_out_and_told(
    count: int, ways: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(start._possible(count)) == ways
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 - len(ways[:2])
    assert all("left out: they take" in line for line in told)


def row(**fields: Any) -> dict[str, Any]:
    return fields


def test_plots_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    pytest.importorskip("matplotlib", reason="pip install -e '.[bench]'")
    from benchmarks import plot  # noqa: PLC0415 (in an extra)

    counts = [10, 100]
    deployed = [
        row(filesystem=kind, peer=peer, count=count, measured=10, seconds=[0.1, 0.2])
        for kind in ("tmpfs", "xfs", "btrfs")
        for peer in peers.PEERS
        for count in counts
    ]
    started = [
        row(way=way, count=count, start=[1.0], stop=[0.5], pss=[1e6], available=[2e6])
        for way in ("runner=nspawn", "C loop")
        for count in counts
    ]
    for part, rows in (("deploy", deployed), ("start", started)):
        settings = {"counts": counts, "on": ["tmpfs", "xfs", "btrfs"]}
        result = {**results.described(part, settings), "rows": rows}
        png, svg = plot.write(tmp_path / "bench", result)
        assert png.read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in svg.read_bytes()
    assert plot.write(tmp_path, {"part": "image"}) == []
