"""The store: nothing but the pinned file gets in or comes out, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pipeline.builder.recipes.component import Signature, Source
from pipeline.builder.sources.signature import SignatureError
from pipeline.builder.sources.store import MismatchError, Store, StoreError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

BODY = b"the pinned bytes"
SOURCE = Source(
    file="thing.tar",
    size=len(BODY),
    sha256=hashlib.sha256(BODY).hexdigest(),
    unsigned="made up by a test",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "store")


def put(store: Store, body: bytes, source: Source = SOURCE) -> Path:
    with store.draft() as draft:
        draft.file.write(body)
        return store.put(draft, source, folder=store.root.parent)


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.iterdir() if path.name != ".lock")


def test_the_name_is_the_digest_and_the_files_own(store: Store) -> None:
    assert put(store, BODY) == store.root / f"{SOURCE.sha256}-thing.tar"


def test_what_was_put_is_got(store: Store) -> None:
    path = put(store, BODY)
    assert store.get(SOURCE) == path


def test_a_store_that_does_not_exist_has_nothing_and_is_not_made(store: Store) -> None:
    assert store.get(SOURCE) is None
    assert not store.root.exists()


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY + b"x", BODY[::-1]])
def test_other_bytes_do_not_get_in(store: Store, body: bytes) -> None:
    with pytest.raises(MismatchError):
        put(store, body)
    assert names(store) == []


def test_the_pinned_bytes_without_their_signature_do_not_get_in(store: Store) -> None:
    signature = Signature(file="s.sig", sha256="0" * 64, key="k.asc", fingerprint="A" * 40)
    source = Source(file="f", size=len(BODY), sha256=SOURCE.sha256, signature=signature)
    with pytest.raises(SignatureError):
        put(store, BODY, source)
    assert names(store) == []


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY[::-1]])
def test_a_file_gone_bad_is_told_and_removed(
    store: Store, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(store, BODY)
    path.write_bytes(body)
    assert store.get(SOURCE) is None
    assert not path.exists()
    assert "has gone bad" in capsys.readouterr().err


def test_a_wrong_size_in_the_recipe_costs_nobody_the_file(store: Store) -> None:
    path = put(store, BODY)
    with pytest.raises(StoreError, match=r"pinned sha256, but 16 bytes; the recipe pins 17"):
        store.get(SOURCE.model_copy(update={"size": SOURCE.size + 1}))
    assert path.read_bytes() == BODY


def test_a_symbolic_link_is_no_stored_file(store: Store, tmp_path: Path) -> None:
    path = put(store, BODY)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.get(SOURCE) is None
    assert (tmp_path / "elsewhere").exists()


def test_a_folder_in_the_files_place_is_an_error(store: Store) -> None:
    store.path(SOURCE.sha256, SOURCE.file).mkdir(parents=True)
    with pytest.raises(StoreError):
        store.get(SOURCE)


def test_a_store_that_is_a_file_is_an_error(store: Store) -> None:
    store.root.write_bytes(b"")
    with pytest.raises(StoreError):
        put(store, BODY)


def test_what_is_missing_is_told_in_order(store: Store) -> None:
    others = [SOURCE.model_copy(update={"sha256": digit * 64}) for digit in "ab"]
    put(store, BODY)
    assert store.missing([others[0], SOURCE, others[1]]) == tuple(others)


def test_a_draft_is_gone_after_a_failure(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.draft():
        raise ZeroDivisionError
    assert names(store) == []


def test_a_full_disk_is_an_error_with_a_hint(store: Store) -> None:
    with pytest.raises(StoreError, match=r"No space left.*\nhint: "), store.draft():
        raise OSError(28, os.strerror(28))


def test_a_draft_somebody_writes_is_left_alone(store: Store) -> None:
    with store.draft() as first, store.draft():
        assert first.path.exists()


def _hold(store: Store, ready: Connection) -> None:
    with store.draft() as draft:
        draft.file.write(BODY)
        draft.file.flush()
        ready.send(True)
        signal.pause()


def test_a_killed_process_leaves_no_file_and_its_draft_goes(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    mine, childs = context.Pipe()
    child = context.Process(target=_hold, args=(store, childs))
    child.start()
    mine.recv()
    child.kill()
    child.join()
    (left_over,) = names(store)
    assert store.get(SOURCE) is None
    put(store, BODY)
    assert left_over not in names(store)
    assert names(store) == [f"{SOURCE.sha256}-thing.tar"]
    mine.close()
    childs.close()


def test_processes_that_put_the_same_file_do_not_spoil_each_other(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=put, args=(store, BODY)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 8
    assert names(store) == [f"{SOURCE.sha256}-thing.tar"]
