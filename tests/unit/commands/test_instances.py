"""Which instances are meant, who answers, and what is told about them."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import run
from pipeline.commands import choose, ssh, status
from pipeline.errors import NiftyError
from pipeline.host.state.layout import LayoutError
from pipeline.host.status import Row
from pipeline.host.units import banner, cgroup, control, sockets, systemd, watch
from pipeline.host.units.cgroup import Memory, Source
from pipeline.host.units.systemd import State
from pipeline.run import ProgramError
from pipeline.settings import Settings
from tests.support.instances import make_instance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.host.state.records import Instance

FLEET = tuple(make_instance(name) for name in ("1", "2", "3", "12", "slick"))


def names(chosen: tuple[Instance, ...]) -> list[str]:
    return [one.suffix for one in chosen]


def test_all_are_meant_when_nothing_is_said() -> None:
    assert names(choose.select(FLEET)) == ["1", "2", "3", "12", "slick"]


def test_count_and_first_choose_numbers() -> None:
    assert names(choose.select(FLEET, count=2, first=2)) == ["2", "3"]


def test_first_alone_leaves_the_lower_numbers_out() -> None:
    assert names(choose.select(FLEET, first=3)) == ["3", "12"]


def test_names_choose_in_their_order() -> None:
    assert names(choose.select(FLEET, names=("slick", "1"))) == ["slick", "1"]


def test_whole_names_are_names() -> None:
    assert names(choose.select(FLEET, names=("nifty3",))) == ["3"]


def test_instance_named_twice_is_chosen_once() -> None:
    assert names(choose.select(FLEET, names=("3", "nifty3"))) == ["3"]


def test_nameless_instance_is_chosen_by_its_whole_name() -> None:
    assert names(choose.select((make_instance(""),), names=("nifty",))) == [""]


def test_unknown_names_are_all_in_one_error() -> None:
    with pytest.raises(choose.UnknownError, match="7, fast"):
        choose.select(FLEET, names=("7", "1", "fast"))


def test_count_beyond_what_exists_names_the_missing() -> None:
    with pytest.raises(choose.UnknownError, match="4, 5"):
        choose.select(FLEET, count=5)


def test_thousands_of_unknown_names_make_a_bounded_error() -> None:
    with pytest.raises(choose.UnknownError) as told:
        choose.select(FLEET, count=5000)
    assert len(told.value.problems) == 11


def test_empty_fleet_says_how_to_get_one() -> None:
    with pytest.raises(NiftyError, match="doit deploy"):
        choose.select(())


def test_ssh_uses_the_generated_configuration() -> None:
    argv = ssh.words(make_instance("7"), Path("/srv/x"))
    assert argv == ("ssh", "-F", "/srv/x/.nifty/ssh_config", "nifty7")


@contextmanager
def server(*pieces: bytes) -> Iterator[int]:
    """Listens on a port, which it yields, and sends *pieces* to everybody; then waits for them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def test_ssh_server_answers() -> None:
    with server(b"SSH-2.0-dropbear\r\n") as port:
        assert banner.answering([port]) == {port}


def test_banner_in_pieces_is_a_banner() -> None:
    with server(b"SS", b"H-2.", b"0-x\r\n") as port:
        assert banner.answering([port]) == {port}


def test_other_protocol_does_not_answer() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n") as port:
        assert banner.answering([port]) == frozenset()


def test_silent_server_does_not_answer() -> None:
    with server() as port:
        assert banner.answering([port], seconds=0.1) == frozenset()


def test_closed_port_does_not_answer() -> None:
    with server() as port:
        pass
    assert banner.answering([port]) == frozenset()


def test_more_ports_than_sockets_are_all_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banner, "MOST_SOCKETS", 3)
    with ExitStack() as stack:
        ports = [stack.enter_context(server(b"SSH-2.0-x\r\n")) for _ in range(10)]
        assert banner.answering(ports) == set(ports)


def test_nobody_is_asked_for_nothing() -> None:
    assert banner.answering([]) == frozenset()


def test_batches_keep_every_word_in_order() -> None:
    words = [f"nifty@{number}.service" for number in range(5000)]
    assert [word for batch in systemd.batches(words) for word in batch] == words


def test_batches_stay_below_the_limit() -> None:
    words = [f"nifty@{number}.service" for number in range(5000)]
    assert max(len(" ".join(batch)) for batch in systemd.batches(words, 1000)) <= 1000


def test_word_longer_than_a_batch_is_one_of_its_own() -> None:
    assert list(systemd.batches(["a", "b" * 20, "c"], 10)) == [("a",), ("b" * 20,), ("c",)]


def test_host_without_systemd_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(systemd.SystemdError, match="not booted by systemd"):
        systemd.require(tmp_path / "system")


def test_hybrid_host_keeps_its_groups_in_unified(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").touch()
    assert cgroup.hierarchy(tmp_path) == tmp_path / "unified"


def test_processes_below_a_group_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "payload").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "payload" / "cgroup.procs").write_text("7\n9\n")
    assert cgroup.processes(tmp_path) == (7, 9)


def test_group_that_is_gone_has_no_processes(tmp_path: Path) -> None:
    assert cgroup.processes(tmp_path / "gone") == ()


def test_memory_is_the_groups_where_that_is_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("4096\n")
    assert cgroup.memory(tmp_path) == Memory(size=4096, source=Source.CGROUP)


def test_memory_is_the_processes_where_the_group_has_none(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    found = cgroup.memory(tmp_path)
    assert found is not None
    assert found.source is Source.PSS


def test_memory_of_nothing_is_none(tmp_path: Path) -> None:
    assert cgroup.memory(tmp_path / "gone") is None


RUNS = Row(
    name="nifty1",
    port=2201,
    image="ab" * 32,
    state=State.ACTIVE,
    answers=True,
    is_asked=True,
    memory=Memory(size=1_100_000, source=Source.PSS),
)
ROWS = (RUNS, replace(RUNS, name="nifty2", state=State.INACTIVE, answers=None, memory=None))


def test_rows_as_json() -> None:
    assert json.loads(status.as_json(ROWS))[0] == {
        "name": "nifty1",
        "port": 2201,
        "image": "ab" * 32,
        "state": "active",
        "stopped_for_change": False,
        "answers": True,
        "port_holder": None,
        "answer_source": "banner",
        "memory": 1_100_000,
        "memory_source": "pss",
        "disk": None,
        "disk_limit": None,
    }


def test_json_says_who_waits_to_run_again() -> None:
    table = json.loads(status.as_json(ROWS, down={ROWS[1].name}))
    assert [row["name"] for row in table if row["stopped_for_change"]] == [ROWS[1].name]


def test_table_says_what_was_counted() -> None:
    assert status.as_table(ROWS)[1] == (
        *("nifty1", "2201", "abababababab", "active", "answers", "1.1 MB (pss)"),
    )


def test_table_says_who_was_not_asked() -> None:
    rows = [replace(RUNS, is_asked=False, answers=answers) for answers in (True, False)]
    assert [line[4] for line in status.as_table(rows)[1:]] == ["listens", "silent"]


def test_table_says_who_has_the_port() -> None:
    rows = [replace(RUNS, answers=False, holder="user 1000 of nifty2")]
    assert status.as_table(rows)[1][4] == "port taken by user 1000 of nifty2"


def test_holder_is_whoever_is_not_of_the_instance() -> None:
    known = [make_instance("1", number=1), make_instance("2", number=2, port=2202)]
    first, second = known[0].base, known[1].base
    owners = {2201: frozenset([first, first + 1000]), 2202: frozenset([second, first + 1000])}
    assert watch.holders(known, known, owners) == {"nifty2": "user 1000 of nifty1"}
    assert watch.holders(known[1:], known, {2202: frozenset([0])}) == {
        "nifty2": "user 0 of this host"
    }


def test_listening_sockets_have_owners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert os.geteuid() in (sockets.listening() or {})[port]
    assert port not in (sockets.listening() or {})


def test_a_host_without_a_table_of_sockets(tmp_path: Path) -> None:
    assert sockets.listening(tmp_path) is None


def test_table_has_dashes_for_what_does_not_run() -> None:
    assert status.as_table(ROWS)[2][3:] == ("inactive", "-", "-")


def test_description_has_five_in_detail_and_names_the_others() -> None:
    many = [make_instance(str(number)) for number in range(1, 31)]
    told = list(control._described(many, lambda one: (f"why {one.name}",)))
    assert (sum("why" in line for line in told), told[-1].split(", ")[-1]) == (5, "nifty30")


def test_program_that_is_missing_cannot_be_become() -> None:
    with pytest.raises(ProgramError, match="no-such-program-here"):
        run.replace(["no-such-program-here"])


def test_prefix_that_is_a_link_is_no_place_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(LayoutError) as caught:
        choose.known_there(Settings(prefix=tmp_path / "link"))
    assert caught.value.hint == f"prefix={tmp_path.resolve()}"
    assert choose.known_there(Settings(prefix=tmp_path)).instances == ()
