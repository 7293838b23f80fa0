"""The table of BusyBox init: the port is found by structure, everything else stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.image import inittab
from pipeline.image.inittab import InittabError, PortPlace

PLACE = PortPlace(program="/sbin/dropbear", word=4)
LINE = "::respawn:/sbin/dropbear -F -w -p 2200"


@pytest.mark.parametrize(
    "text",
    [
        f"{LINE}\n",
        LINE,
        f"# a comment\n\n{LINE}\n::restart:/sbin/init\n",
        f"#{LINE}\n{LINE}\n",
        f"# mentions /sbin/dropbear -F -w -p 1:2:3\n{LINE}\n",
        "::respawn:/sbin/dropbear  -F\t-w   -p \t2200\n",
        "::respawn: /sbin/dropbear -F -w -p 2200\n",
        "tty1:345:respawn:/sbin/dropbear -F -w -p 2200 -K 300\n",
        f"{LINE} # the port\n",
        f"{LINE}# :::\n",
        f"::respawn:/sbin/dropbear -F -w -p no\n{LINE}\n",
        f"::respawn:/sbin/dropbear\n{LINE}\n",
        f"::respawn:/sbin/dropbearkey -F -w -p 1\n{LINE}\n",
        f"::respawn:/bin/echo /sbin/dropbear -F -w -p 1\n{LINE}\n",
        f"a:b\n::\n:::\n::::\n{LINE}\n",
        f"::respawn:/sbin/dropbear -F -w -p ²\n{LINE}\n",
        f"::respawn:/sbin/dropbear -F -w # -p 1\n{LINE}\n",
        f"# page\x0c::respawn:/sbin/dropbear -F -w -p 1\u2028{LINE}\n{LINE}\n",
    ],
)
def test_the_port_is_found(text: str) -> None:
    assert inittab.port_of(text, PLACE) == 2200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"#{LINE}\n",
        f" # {LINE}\n",
        ":respawn:/sbin/dropbear -F -w -p 2200\n",
        "::respawn:/sbin/dropbear -F -p 2200\n",
        "::respawn:/sbin/dropbear -F -w -p ２２００\n",  # noqa: RUF001 (digits of another script)
        "::respawn:/sbin/dropbear -F -w -p 2200x\n",
        "::respawn:/sbin/dropbear -F -w -p 2200\r\n",
        "::respawn:/sbin/dropbear -F -w -p\u00a02200\n",
        f"::respawn:/sbin/dropbear -F -w -p {'9' * 5000}\n",
    ],
)
def test_no_line_with_a_port(text: str) -> None:
    with pytest.raises(InittabError, match="no line with /sbin/dropbear") as caught:
        inittab.port_of(text, PLACE)
    assert "::respawn:/sbin/dropbear" in (caught.value.hint or "")


def test_two_lines_with_a_port() -> None:
    with pytest.raises(InittabError, match="2 lines with"):
        inittab.with_port(f"{LINE}\n{LINE}\n", PLACE, 2201)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LINE, "::respawn:/sbin/dropbear -F -w -p 65000"),
        ("::respawn:/sbin/dropbear\t-F  -w\t -p  1  # 1\n",
         "::respawn:/sbin/dropbear\t-F  -w\t -p  65000  # 1\n"),
        ("2200:2200:respawn:/sbin/dropbear 2200 2200 2200 2200 2200",
         "2200:2200:respawn:/sbin/dropbear 2200 2200 2200 65000 2200"),
    ],
)  # fmt: skip
def test_only_the_port_changes(text: str, wanted: str) -> None:
    assert inittab.with_port(text, PLACE, 65000) == wanted


_USERS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=40).filter(
        lambda line: "dropbear" not in line
    ),
    max_size=6,
)
_GAPS = st.text(" \t", min_size=1, max_size=4)


@given(before=_USERS, after=_USERS, gaps=st.lists(_GAPS, min_size=4, max_size=4), end=_GAPS,
       old=st.integers(1, 65535), new=st.integers(1, 65535))  # fmt: skip
def test_a_user_s_own_lines_are_kept_byte_for_byte(
    before: list[str], after: list[str], gaps: list[str], end: str, old: int, new: int
) -> None:
    words = ["/sbin/dropbear", "-F", "-w", "-p"]
    head = "::respawn:" + "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    first = "\n".join([*before, head])
    last = "\n".join([end, *after])
    text = f"{first}{old}{last}"
    assert inittab.with_port(text, PLACE, new) == f"{first}{new}{last}"
    assert inittab.port_of(inittab.with_port(text, PLACE, new), PLACE) == new


def test_a_line_that_keeps_a_program_running() -> None:
    assert inittab.respawn(("/sbin/dropbear", "-F", "-w", "-p", "2200")) == LINE


def test_processes_as_init_reads_them() -> None:
    text = f"# c:o:m:ment\n{LINE}\n\n::restart:\ntty1::askfirst:-/bin/sh\t-l # x\n1:2:3\n"
    assert list(inittab.processes(text)) == [
        ("respawn", ("/sbin/dropbear", "-F", "-w", "-p", "2200")),
        ("askfirst", ("-/bin/sh", "-l")),
    ]


@pytest.mark.parametrize(
    "line", [LINE, "", "  ", "# a word: on: this: line", "tty1::askfirst:-/bin/sh # x", "::once:"]
)
def test_a_line_that_init_takes(line: str) -> None:
    assert inittab.problem(line) is None


@pytest.mark.parametrize("line", ["nonsense", "::respawn", "1:2:initdefault:", "::respawn#:/x"])
def test_a_line_that_init_leaves_out(line: str) -> None:
    assert inittab.problem(line) is not None
