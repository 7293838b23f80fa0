"""What an upgrade does with one path, as a table."""

from __future__ import annotations

import pytest

from pipeline.host.roots.merge import Strange, Verdict, decide, merge_table
from pipeline.image.inittab import PortPlace
from pipeline.image.rootfs import Directory, Entry, File

A, B, MINE = (File(path="f", content=text) for text in (b"a", b"b", b"mine"))
FOLDER = Directory(path="f")
TIGHT = Directory(path="f", mode=0o700, uid=7, gid=7)
HALF = Directory(path="f", uid=7, gid=7)  # chown(2) was done, chmod(2) was not
OTHER = Directory(path="f", mode=0o711)


@pytest.mark.parametrize(
    ("disk", "old", "new", "verdict"),
    [
        (A, A, A, Verdict.LEAVE),
        (MINE, A, A, Verdict.LEAVE),
        (None, A, A, Verdict.LEAVE),
        (B, A, B, Verdict.LEAVE),
        (A, A, B, Verdict.PUT),
        (None, A, B, Verdict.PUT),
        (None, None, B, Verdict.PUT),
        (FOLDER, FOLDER, B, Verdict.PUT),
        (A, A, FOLDER, Verdict.PUT),
        (MINE, A, B, Verdict.KEEP),
        (MINE, None, B, Verdict.KEEP),
        (FOLDER, A, B, Verdict.KEEP),
        (Strange.STRANGE, A, B, Verdict.KEEP),
        (HALF, FOLDER, TIGHT, Verdict.PUT),
        (OTHER, FOLDER, TIGHT, Verdict.KEEP),
        (A, A, None, Verdict.REMOVE),
        (MINE, A, None, Verdict.LEAVE),
        (None, A, None, Verdict.LEAVE),
    ],
)
def test_a_path_has_its_fate(
    disk: Entry | Strange | None, old: Entry | None, new: Entry | None, verdict: Verdict
) -> None:
    assert decide(disk, old, new) is verdict


OLD = "# table\n::respawn:/sbin/dropbear -F -p 2207\n::respawn:/sbin/syslogd -n\n"
NEW = "# table\n::respawn:/sbin/dropbear -F -w -p 2207\n::respawn:/sbin/syslogd -n\n"
PLACES = (PortPlace(program="/sbin/dropbear", word=3), PortPlace(program="/sbin/dropbear", word=4))
CRON = "::respawn:/sbin/crond -f\n"


def merged(disk: str) -> str | None:
    return merge_table(disk, OLD, NEW, places=PLACES, port=2207)


def test_a_line_of_the_users_stays() -> None:
    assert merged(OLD + CRON) == NEW + CRON


def test_a_line_that_the_user_removed_stays_away() -> None:
    assert merged(OLD.replace("::respawn:/sbin/syslogd -n\n", "")) == NEW.replace(
        "::respawn:/sbin/syslogd -n\n", ""
    )


def test_the_port_is_the_recorded_one() -> None:
    disk = (OLD + CRON).replace("# table\n", "")
    table = merge_table(disk, OLD, NEW.replace("2207", "2200"), places=PLACES, port=2207)
    assert table == NEW.replace("# table\n", "") + CRON


def test_a_line_that_both_changed_is_a_conflict() -> None:
    assert merged(OLD.replace("-F -p 2207", "-F -s -p 2207")) is None


def test_merging_again_changes_nothing() -> None:
    once = merged(OLD + CRON)
    assert once is not None
    assert merged(once) == once


def test_a_second_server_is_a_conflict() -> None:
    assert merged(f"{OLD}::respawn:/sbin/dropbear -F -w -p 99\n") is None
