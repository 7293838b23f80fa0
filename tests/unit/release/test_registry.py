"""Pushing to and fetching from a registry that breaks, lies, and asks who is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.net import registry as protocol
from pipeline.net import session
from pipeline.net.login import Login
from pipeline.net.registry import Registry
from pipeline.net.session import RegistryError
from pipeline.net.transport import Transport
from pipeline.release import oci, referrers, registry
from tests.support.oci_image import oci_image
from tests.support.registry import PASSWORD, USER, Fake, Fault, faking, fetched

if TYPE_CHECKING:
    from collections.abc import Iterator

X86 = oci_image("x86_64")
MADE = oci.index([X86, oci_image("aarch64")])
ABOUT = referrers.of_documents(
    MADE, {"SHA256SUMS": b"sums", "small_2026.11_x86-64.cdx.json": b"[]"}
)
FAST = Transport(backoff=lambda _number: 0, read_timeout=5)
BLOBS, MANIFESTS = 9, 7
TAGS = ("2026.11", "latest")


@pytest.fixture
def fake() -> Iterator[Fake]:
    with faking() as one:
        yield one


def push(
    fake: Fake, login: Login | None = None, *, overwrite: bool = False, tags: tuple[str, ...] = TAGS
) -> registry.Pushed:
    with Registry(fake.reference(), login=login, transport=FAST, writes=True) as opened:
        return registry.push(opened, MADE, ABOUT, tags, overwrite=overwrite)


def fetch(fake: Fake, tag: str = "2026.11", architecture: str = "x86_64") -> bytes:
    return fetched(fake.reference(tag), architecture)


def test_everything_is_there_and_the_tags_come_last(fake: Fake) -> None:
    assert push(fake) == registry.Pushed(sent=BLOBS + MANIFESTS, there=0, moved=TAGS)
    assert fake.manifests["2026.11"] == (oci.INDEX, MADE.blob.content)
    assert set(fake.blobs) == {
        blob.digest for blob in (*MADE.blobs, *(blob for one in ABOUT for blob in one.blobs))
    }
    sent = fake.asked(r"^(PUT|POST)")
    assert [one.rpartition("/")[2] for one in sent[-2:]] == list(TAGS)
    assert sent[-3].endswith(referrers.fallback_tag(MADE.blob.digest))
    listed = json.loads(fake.manifests[referrers.fallback_tag(MADE.blob.digest)][1])["manifests"]
    assert listed == [dict(one.descriptor) for one in ABOUT]


def test_what_is_there_is_not_sent_again(fake: Fake) -> None:
    push(fake)
    fake.requests.clear()
    assert push(fake) == registry.Pushed(sent=0, there=BLOBS + MANIFESTS, moved=())
    assert fake.asked(r"^(PUT|POST|PATCH)") == []


def test_a_push_that_was_broken_off_goes_on(fake: Fake) -> None:
    fake.faults = [Fault(f"PUT .*/manifests/{MADE.blob.digest}", status=507, times=9)]
    with pytest.raises(RegistryError, match=r"sending manifest sha256:.*answers 507"):
        push(fake)
    assert "2026.11" not in fake.manifests
    fake.faults.clear()
    assert push(fake).there == BLOBS + len(MADE.entries)


def test_a_registry_that_lists_referrers_needs_no_tag_for_it(fake: Fake) -> None:
    fake.has_referrers = True
    push(fake)
    assert referrers.fallback_tag(MADE.blob.digest) not in fake.manifests


def test_what_others_said_of_the_image_stays(fake: Fake) -> None:
    other = {"mediaType": oci.MANIFEST, "digest": f"sha256:{'1' * 64}", "size": 3}
    tag = referrers.fallback_tag(MADE.blob.digest)
    fake.manifests[tag] = (oci.INDEX, json.dumps({"manifests": [other]}).encode())
    push(fake)
    assert json.loads(fake.manifests[tag][1])["manifests"][0] == other


def test_a_version_is_not_moved_unasked(fake: Fake) -> None:
    for tag in TAGS:
        fake.manifests[tag] = (oci.INDEX, b'{"manifests":[]}')
    with pytest.raises(RegistryError, match=r"a/b:2026.11 is there with other bytes"):
        push(fake)
    assert fake.asked(r"^(PUT|POST)") == []
    assert push(fake, tags=("latest",)).moved == ("latest",)
    assert push(fake, overwrite=True).moved == ("2026.11",)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(r"PUT .*/uploads/", status=503, headers={"Retry-After": "0"}),
        Fault(r"PUT .*/uploads/", keep=100),
        Fault(r"POST .*/uploads/"),
        Fault(r"HEAD .*/blobs/", status=429, headers={"Retry-After": "0"}),
        Fault(r"PUT .*/manifests/"),
        Fault(r"GET .*/referrers/", status=500),
    ],
)
def test_a_failure_that_passes_is_nothing(fake: Fake, fault: Fault) -> None:
    fake.faults = [fault]
    assert push(fake).moved == TAGS
    assert fault.times == 0
    assert fetch(fake) == X86.archive


def test_a_large_blob_goes_in_pieces_and_on_where_it_broke(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_WHOLE", 1000)
    monkeypatch.setattr(protocol, "_PIECE", 1000)
    content = bytes(range(256)) * 20
    digest = oci.Blob.of("x", content).digest
    fake.faults = [Fault(r"PATCH .*state=2", keep=700), Fault(r"PUT .*/uploads/", keep=11)]
    with Registry(fake.reference(), transport=FAST, writes=True) as opened:
        assert opened.put_blob(digest, content)
    assert fake.blobs == {digest: content}
    # 1000 + (700 broken) + 1000 + 1000 + 1000, then 420, of which 11 were taken
    assert len(fake.asked("^PATCH")) == 5
    assert len(fake.asked("^POST")) == 1


def test_an_upload_that_was_forgotten_begins_again(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_WHOLE", 1000)
    monkeypatch.setattr(protocol, "_PIECE", 1000)
    content = bytes(range(256)) * 20
    digest = oci.Blob.of("x", content).digest
    fake.faults = [Fault(r"PATCH .*state=2"), Fault(r"GET .*/uploads/", status=404)]
    with Registry(fake.reference(), transport=FAST, writes=True) as opened:
        assert opened.put_blob(digest, content)
    assert fake.blobs == {digest: content}
    assert len(fake.asked("^POST")) == 2


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_what_is_fetched_is_the_published_file(fake: Fake, architecture: str) -> None:
    push(fake)
    assert fetch(fake, "latest", architecture) == oci_image(architecture).archive
    pinned = fake.reference("gone")
    pinned = type(pinned)(host=pinned.host, name=pinned.name, digest=MADE.blob.digest)
    assert fetched(pinned) == X86.archive


@pytest.mark.parametrize("architecture", ["riscv64", "vax", ""])
def test_an_architecture_that_is_not_there_is_told(fake: Fake, architecture: str) -> None:
    push(fake)
    with pytest.raises(RegistryError, match="has no image for"):
        fetch(fake, architecture=architecture)


def test_a_tag_that_is_not_there_is_told(fake: Fake) -> None:
    with pytest.raises(RegistryError, match=r"there is no 2026.11"):
        fetch(fake)


@pytest.mark.parametrize("what", ["blob", "longer blob", "manifest", "index"])
def test_a_lie_about_a_digest_is_caught(fake: Fake, what: str) -> None:
    push(fake)
    layer, manifest = MADE.entries[1].layer.digest, MADE.entries[1].manifest.digest
    other = oci.index([oci_image("x86_64", filling=99)])
    named = fake.reference("2026.11")
    match what:
        case "blob":
            content = fake.blobs[layer]
            fake.blobs[layer] = content[:-1] + bytes([content[-1] ^ 1])
        case "longer blob":
            fake.blobs[layer] += b"!"
        case "manifest":
            fake.manifests[manifest] = (oci.MANIFEST, other.entries[1].manifest.content)
        case _:
            fake.manifests[MADE.blob.digest] = (oci.INDEX, other.blob.content)
            named = type(named)(host=named.host, name=named.name, digest=MADE.blob.digest)
    with pytest.raises(RegistryError, match=r"sends other bytes|sends more than"):
        fetched(named)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            Fault(
                r"PUT .*/manifests/", 201, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"}
            ),
            r"says that it is sha256:000",
        ),
        (
            Fault(r"PUT .*/uploads/", 201, headers={"Docker-Content-Digest": "sha256:\x1b"}),
            r"says that it is sha256:\\x1b",
        ),
        (Fault(r"HEAD .*/blobs/", 200, body=b"1234567"), "with 7 bytes, it has"),
        # it says that it has the tag, and gives nothing back
        (Fault(r"PUT .*/manifests/2026.11", 201), "does not give back what was sent"),
        (Fault(r"POST .*/uploads/", 202), "no Location"),
        (Fault(r"POST .*/uploads/", 202, headers={"Location": "http://h/"}), "only https"),
        (Fault(r"GET .*/manifests/2026.11", 302, headers={"Location": "ftp://h/"}), "only https"),
        (Fault(r"GET .*/manifests/2026.11", 200, body=bytes(5 << 20)), "sends more than"),
        (
            Fault(r"POST", 403, body=b'{"errors":[{"code":"DENIED","message":"\\u001b[31mno"}]}'),
            r"answers 403: DENIED \\x1b\[31mno\nhint: docker login",
        ),
    ],
)
def test_a_registry_that_does_otherwise_is_told_of(fake: Fake, fault: Fault, told: str) -> None:
    fake.faults = [fault]
    with pytest.raises(RegistryError, match=told):
        push(fake)


def test_a_redirect_gets_no_login(fake: Fake) -> None:
    """The blobs of many registries lie elsewhere."""
    push(fake)
    fake.challenge = "basic"
    layer = MADE.entries[1].layer.digest
    with faking() as elsewhere:
        elsewhere.blobs[layer] = X86.archive
        address = f"http://127.0.0.1:{elsewhere.port}/v2/a/b/blobs/{layer}"
        fake.faults = [Fault(rf"GET .*/{layer}", 307, headers={"Location": address})]
        named = fake.reference("latest")
        assert fetched(named, login=Login(user=USER, password=PASSWORD)) == X86.archive
        assert [login for _method, _path, login in elsewhere.requests] == [""]


def test_redirects_have_an_end(fake: Fake) -> None:
    fake.faults = [Fault("GET", 302, times=99, headers={"Location": "/v2/a/b/manifests/x"})]
    with pytest.raises(RegistryError, match="answers 302"):
        fetch(fake)
    assert len(fake.requests) == session._HOPS + 1


@pytest.mark.parametrize("challenge", ["basic", "bearer"])
def test_who_is_asked_logs_in(fake: Fake, challenge: str) -> None:
    fake.challenge = challenge
    push(fake, Login(user=USER, password=PASSWORD))
    assert fake.requests[0][2] == ""  # nothing is sent unasked
    if challenge == "bearer":
        assert fake.asked("/token") == [
            "GET /token?scope=repository%3Aa%2Fb%3Apull%2Cpush&service=here"
        ]


def test_a_long_token_is_exchanged_for_a_short_one(fake: Fake) -> None:
    fake.challenge = "bearer"
    push(fake, Login(token="long"))
    told = "scope=repository%3Aa%2Fb%3Apull%2Cpush&service=here"
    assert fake.forms == [f"{told}&grant_type=refresh_token&refresh_token=long&client_id=nifty"]


@pytest.mark.parametrize("challenge", ["basic", "bearer"])
@pytest.mark.parametrize("login", [None, Login(user=USER, password="s3cret")])
def test_who_is_not_let_in_is_told_how(fake: Fake, challenge: str, login: Login | None) -> None:
    fake.challenge = challenge
    with pytest.raises(RegistryError, match=r"answers 401[\s\S]*docker login 127.0.0.1") as caught:
        push(fake, login)
    assert "s3cret" not in str(caught.value)


def test_a_netrc_is_not_read(
    fake: Fake, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("default login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    push(fake)
    assert {login for _method, _path, login in fake.requests} == {""}


def test_a_token_that_would_break_its_header_is_refused(fake: Fake) -> None:
    fake.challenge = "bearer"
    fake.faults = [Fault("/token", 200, body=b'{"token":"a\\r\\nX: y"}')]
    with pytest.raises(RegistryError, match="gives no token"):
        push(fake, Login(user=USER, password=PASSWORD))
