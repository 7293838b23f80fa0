"""Patches are applied exactly, wholly, and inside the source, or not at all."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.builder.components import patch
from pipeline.builder.components.patch import PatchError
from pipeline.builder.recipes import catalogue
from pipeline.paths import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

TEN = "".join(f"line {number}\n" for number in range(1, 11))
FIFTH = """\
--- a/f.c
+++ b/f.c
@@ -4,3 +4,3 @@ int main
 line 4
-line 5
+LINE 5
 line 6
"""
CHANGED = TEN.replace("line 5", "LINE 5")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    (root / "f.c").write_text(TEN)
    return root


def snapshot(tree: Path) -> dict[str, bytes]:
    paths = (path for path in tree.parent.rglob("*") if path.is_file())
    return {str(path.relative_to(tree.parent)): path.read_bytes() for path in paths}


def refuse(tree: Path, text: str, why: str) -> None:
    """The patch is refused for that reason, and nothing has changed."""
    before = snapshot(tree)
    with pytest.raises(PatchError, match=why) as caught:
        patch.apply(text, tree, name="fix.patch")
    assert caught.value.message.startswith("fix.patch: ")
    assert snapshot(tree) == before


def test_a_hunk_at_its_line(tree: Path) -> None:
    assert patch.apply(FIFTH, tree, name="fix.patch") == ("f.c",)
    assert (tree / "f.c").read_text() == CHANGED


def test_a_hunk_that_others_moved(tree: Path) -> None:
    (tree / "f.c").write_text("more\n" * 5 + TEN)
    patch.apply(FIFTH, tree, name="fix.patch")
    assert (tree / "f.c").read_text() == "more\n" * 5 + CHANGED


def test_headers_of_mails_and_git_are_passed_over(tree: Path) -> None:
    mail = (
        "From: a\nSubject: b\n- a list\n+ of things\n @@\n---\n f.c | 2 +-\n"
        "diff --git a/f.c b/f.c\nindex 1..2 100644\n"
    )
    patch.apply(f"{mail}{FIFTH}-- \n2.39.5\n\n", tree, name="fix.patch")
    assert (tree / "f.c").read_text() == CHANGED


def test_names_may_have_a_time_behind_them(tree: Path) -> None:
    stamped = FIFTH.replace("/f.c\n", "/f.c\t2026-01-01 00:00:00 +0000\n")
    assert patch.apply(stamped, tree, name="fix.patch") == ("f.c",)


def test_an_empty_context_line_may_have_lost_its_blank(tree: Path) -> None:
    (tree / "f.c").write_text("a\n\nb\n")
    patch.apply("--- a/f.c\n+++ b/f.c\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n", tree, name="fix.patch")
    assert (tree / "f.c").read_text() == "a\n\nc\n"


@pytest.mark.parametrize("changed", ["line 4", "line 5", "line 6"])
def test_no_fuzz(tree: Path, changed: str) -> None:
    (tree / "f.c").write_text(TEN.replace(changed, f"{changed} "))
    refuse(tree, FIFTH, r"f\.c: hunk 1 \(line 4\) fits nowhere")


def test_two_places_and_neither_is_the_right_one(tree: Path) -> None:
    (tree / "f.c").write_text("more\n" + TEN + TEN)
    refuse(tree, FIFTH, "fits at 2 places")


def test_the_line_named_decides_between_two_places(tree: Path) -> None:
    (tree / "f.c").write_text(TEN + TEN)
    patch.apply(FIFTH, tree, name="fix.patch")
    assert (tree / "f.c").read_text() == CHANGED + TEN


def test_an_insertion_without_context_goes_behind_its_line(tree: Path) -> None:
    patch.apply("--- a/f.c\n+++ b/f.c\n@@ -5,0 +6 @@\n+new\n", tree, name="fix.patch")
    assert (tree / "f.c").read_text() == TEN.replace("line 5\n", "line 5\nnew\n")


def test_nothing_is_written_if_a_later_hunk_does_not_fit(tree: Path) -> None:
    refuse(tree, f"{FIFTH}@@ -8,1 +8,1 @@\n-line 9000\n+x\n", "hunk 2")


def test_nothing_is_written_if_a_later_file_does_not_fit(tree: Path) -> None:
    created = "--- /dev/null\n+++ b/new.c\n@@ -0,0 +1 @@\n+x\n"
    refuse(tree, f"{FIFTH}{created}--- a/gone.c\n+++ b/gone.c\n@@ -1 +1 @@\n-x\n+y\n", "no such")


def test_one_file_twice(tree: Path) -> None:
    again = FIFTH.replace("-line 5", "-LINE 5").replace("+LINE 5", "+fifth")
    patch.apply(FIFTH + again, tree, name="fix.patch")
    assert (tree / "f.c").read_text() == TEN.replace("line 5", "fifth")


def test_a_new_file_in_a_new_folder(tree: Path) -> None:
    text = "--- /dev/null\n+++ b/new/deep/x.c\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    assert patch.apply(text, tree, name="fix.patch") == ("new/deep/x.c",)
    assert (tree / "new/deep/x.c").read_text() == "one\ntwo\n"


def test_a_new_file_that_is_there(tree: Path) -> None:
    refuse(tree, "--- /dev/null\n+++ b/f.c\n@@ -0,0 +1 @@\n+x\n", "is to be created, but is there")


def test_a_removed_file(tree: Path) -> None:
    (tree / "old.c").write_text("a\nb\n")
    text = "--- a/old.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n"
    assert patch.apply(text, tree, name="fix.patch") == ("old.c",)
    assert not (tree / "old.c").exists()


def test_a_removed_file_with_more_in_it(tree: Path) -> None:
    (tree / "old.c").write_text("a\nb\nc\n")
    refuse(tree, "--- a/old.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n", "to be removed, but")


def test_a_file_made_and_removed_again(tree: Path) -> None:
    made = "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+1\n"
    patch.apply(f"{made}--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n", tree, name="fix.patch")
    assert not (tree / "x").exists()


@pytest.mark.parametrize(
    ("before", "hunk", "after"),
    [
        ("a\nb", " a\n-b\n\\ No newline at end of file\n+c\n", "a\nc\n"),
        ("a\nb\n", " a\n-b\n+c\n\\ No newline at end of file\n", "a\nc"),
        ("a\nb", "-a\n+c\n b\n\\ No newline at end of file\n", "c\nb"),
        ("a\nb", " a\n-b\n\\ No newline\n+c\n\\ No newline\n", "a\nc"),
    ],
)
def test_a_missing_newline_at_the_end(tree: Path, before: str, hunk: str, after: str) -> None:
    (tree / "f.c").write_text(before)
    patch.apply(f"--- a/f.c\n+++ b/f.c\n@@ -1,2 +1,2 @@\n{hunk}", tree, name="fix.patch")
    assert (tree / "f.c").read_text() == after


def test_a_newline_that_is_there_after_all(tree: Path) -> None:
    (tree / "f.c").write_text("a\n")
    refuse(tree, "--- a/f.c\n+++ b/f.c\n@@ -1 +1 @@\n-a\n\\ No newline\n+b\n", "fits nowhere")


def test_a_line_without_newline_in_the_middle(tree: Path) -> None:
    hunk = "@@ -1 +1 @@\n-line 1\n+one\n\\ No newline\n"
    refuse(tree, f"--- a/f.c\n+++ b/f.c\n{hunk}", "without newline would stand before others")


@pytest.mark.parametrize("odd", ["\x0c", "\x0b", "\r", "\x1c", "\u2028", "\x85"])
def test_what_python_takes_for_a_line_s_end_is_kept(tree: Path, odd: str) -> None:
    (tree / "f.c").write_bytes(f"a{odd}a\n{odd}\nb\n".encode())
    hunk = f"@@ -1,3 +1,3 @@\n a{odd}a\n {odd}\n-b\n+c\n"
    patch.apply(f"--- a/f.c\n+++ b/f.c\n{hunk}", tree, name="fix.patch")
    assert (tree / "f.c").read_bytes() == f"a{odd}a\n{odd}\nc\n".encode()


def test_bytes_that_are_not_utf_8_are_kept(tree: Path) -> None:
    (tree / "f.c").write_bytes(TEN.encode() + b"\xff\xfe\r\n")
    patch.apply(FIFTH, tree, name="fix.patch")
    assert (tree / "f.c").read_bytes() == CHANGED.encode() + b"\xff\xfe\r\n"


@pytest.mark.parametrize("name", ["../f.c", "/etc/x", "x/../../f.c", ".", "x//y"])
def test_a_path_out_of_the_source(tree: Path, name: str) -> None:
    refuse(tree, f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n", "clean relative path")


def test_a_removal_outside_the_source(tree: Path) -> None:
    (tree.parent / "victim").write_text("a\n")
    refuse(tree, "--- a/../victim\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "clean relative path")


@pytest.mark.parametrize("link", ["folder", "file"])
def test_a_link_out_of_the_source(tree: Path, link: str) -> None:
    (tree.parent / "victim").write_text("a\n")
    (tree / "link").symlink_to(tree.parent / ("victim" if link == "file" else ""))
    name = "link" if link == "file" else "link/victim"
    refuse(tree, f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-a\n+b\n", "lies outside the source")


def test_a_loop_of_links(tree: Path) -> None:
    (tree / "loop").symlink_to("loop")
    refuse(tree, "--- a/loop\n+++ b/loop\n@@ -1 +1 @@\n-a\n+b\n", "loop")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a unified diff"),
        ("just words\n", "not a unified diff"),
        ("--- a/f.c\n+++ b/f.c\n", "without hunks"),
        ("--- a/f.c\n+++ b/f.c\nsomething\n", "without hunks"),
        ("--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+x\n", "both names"),
        ("--- f.c\n+++ f.c\n@@ -1 +1 @@\n-a\n+b\n", "one leading folder"),
        ("--- /dev/null\n+++ b/\n@@ -0,0 +1 @@\n+x\n", "one leading folder"),
        (FIFTH.removesuffix(" line 6\n"), "ends too early"),
        (FIFTH.replace("@@ -4,3 +4,3 @@", "@@ -4,9 +4,9 @@"), "ends too early"),
        (FIFTH.replace("@@ -4,3 +4,3 @@", "@@ -4,2 +4,2 @@"), "outside every hunk"),
        (FIFTH.replace("@@ -4,3 +4,3 @@", "@@ -4,1 +4,3 @@"), "more lines than it says"),
        (FIFTH.replace("@@ -4,3 +4,3 @@", "@@ -x,3 +4,3 @@"), "outside every hunk"),
        (FIFTH.replace("@@ -4,3 +4,3 @@", "@@ -4,3 @@"), "outside every hunk"),
        (FIFTH.replace(" line 4", "\\ No newline"), "ends too early"),
        (FIFTH.replace(" line 4", "line 4"), "ends too early"),
        (f"{FIFTH}+one more\n", "outside every hunk"),
        (f"{FIFTH}@@ damaged @@\n-x\n+y\n", "outside every hunk"),
        (f"rename from f.c\nrename to g.c\n{FIFTH}", "outside every hunk"),
        (f"old mode 100644\nnew mode 100755\n{FIFTH}", "outside every hunk"),
        (f"{FIFTH}GIT binary patch\nliteral 3\n", "outside every hunk"),
    ],
)
def test_a_damaged_patch(tree: Path, text: str, why: str) -> None:
    refuse(tree, text, why)


@pytest.mark.parametrize("size", range(1, len(FIFTH) - 1, 3))
def test_a_truncated_patch_changes_nothing(tree: Path, size: int) -> None:
    refuse(tree, FIFTH[:size], r"ends too early|unified diff|leading folder|fits nowhere|hunk")


_ODD = ("a", "b", "", "-- x", "++ y", "\x0c", "@@ -1 +1 @@")
_LINES = st.lists(st.sampled_from(_ODD), max_size=9)


@given(old=_LINES, new=_LINES)
@settings(max_examples=150, deadline=None)
def test_what_diff_says_makes_the_new_file_of_the_old(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str]
) -> None:
    before, after = ([f"{line}\n" for line in lines] for lines in (old, new))
    text = "".join(difflib.unified_diff(before, after, "a/f", "b/f"))
    tree = tmp_path_factory.mktemp("tree")
    (tree / "f").write_bytes("".join(before).encode())
    if before != after:
        patch.apply(text, tree, name="fix.patch")
    assert (tree / "f").read_bytes() == "".join(after).encode()


def test_the_recipes_patches_are_read() -> None:
    recipes = catalogue.load(PROJECT / "recipes")
    changed = {
        diff.new
        for component in recipes.components.values()
        for item in component.patch
        for diff in patch.parse(
            (recipes.folder(component) / item.file).read_text("utf-8"), name=item.file
        )
    }
    assert {"editors/awk.c", "shell/ash.c", "networking/wget.c"} <= changed
