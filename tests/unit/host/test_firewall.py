"""What is written for a firewall and for telnet, without either."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.host import firewall, telnet
from pipeline.host.binds.rules import UnitError
from pipeline.host.state.layout import Layout
from pipeline.host.telnet import Mode, Server

PORTS = st.sets(st.integers(1, 65535), max_size=50)


@given(PORTS)
def test_spans_are_exactly_the_ports(ports: set[int]) -> None:
    spans = firewall.spans(ports)
    assert {port for first, last in spans for port in range(first, last + 1)} == ports


@given(PORTS)
def test_spans_do_not_touch(ports: set[int]) -> None:
    spans = firewall.spans(ports)
    assert all(low[1] + 1 < high[0] for low, high in pairwise(spans))


def test_a_thousand_instances_are_one_element() -> None:
    assert firewall.elements(range(2201, 3201)) == "2201-3200"


def test_firewalld_gets_the_same_ports() -> None:
    root = ET.fromstring(firewall.service([2100, 2201, 2202]))  # noqa: S314 (our own text)
    assert [port.attrib for port in root.iter("port")] == [
        {"protocol": "tcp", "port": "2100"},
        {"protocol": "tcp", "port": "2201-2202"},
    ]


def server(mode: Mode = Mode.SOCKET, listen: str = "127.0.0.1") -> Server:
    return Server(mode=mode, listen=listen, port=12323, login=Path("/bin/login"))


@pytest.mark.parametrize(
    ("listen", "exposed"), [("127.0.0.1", False), ("::1", False), ("192.0.2.1", True), ("::", True)]
)
def test_exposed_is_what_others_reach(listen: str, exposed: bool) -> None:  # noqa: FBT001 (a case)
    assert server(listen=listen).is_exposed is exposed


def test_v6_address_is_in_brackets() -> None:
    assert (
        "ListenStream=[::1]:12323\n"
        in telnet.files(server(listen="::1"), Layout(Path("/h")))[0].text
    )


@pytest.mark.parametrize(
    ("mode", "kill"), [(Mode.INETD, "process"), (Mode.FORKING, "control-group")]
)
def test_kill_mode_is_the_articles(mode: Mode, kill: str) -> None:
    (file,) = telnet.files(server(mode), Layout(Path("/home")))
    assert f"\nKillMode={kill}\n" in file.text


def test_odd_prefix_is_refused() -> None:
    with pytest.raises(UnitError):
        telnet.files(server(), Layout(Path("/a b")))
