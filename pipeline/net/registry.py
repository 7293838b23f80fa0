"""Speaks to one repository of an OCI registry (distribution-spec 1.1), and believes nothing.

Everything is named by its digest, and what comes is digested before anybody gets it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pipeline.errors import shown
from pipeline.net.https import Expected
from pipeline.net.reference import is_digest
from pipeline.net.session import Answer, Session, object_of, with_query
from pipeline.net.transport import AgainError, HttpError

if TYPE_CHECKING:
    from pipeline.net.login import Login
    from pipeline.net.reference import Reference
    from pipeline.net.transport import Transport
    from pipeline.progress import Step

# As large as a registry has to take one (distribution-spec, "Pushing Manifests").
_MOST_MANIFEST = 4 << 20
# Up to this a blob goes in one request, which every registry takes; beyond it in pieces, of which
# only the one that failed is sent again.
_WHOLE, _PIECE = 32 << 20, 16 << 20

_OCTETS = "application/octet-stream"
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(slots=True)
class _Upload:
    """Where a blob is being sent to, and how much of it has arrived."""

    location: str = ""
    done: int = 0


class Registry:
    """The repository that *reference* names, for as long as the block runs.

    As `session.Session` says of *login* and *writes*. Every method raises RegistryError.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        login: Login | None = None,
        transport: Transport | None = None,
        writes: bool = False,
    ) -> None:
        self._session = Session(reference, login=login, transport=transport, writes=writes)
        self.title = f"{reference.host}/{reference.name}"

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def put_blob(self, digest: str, content: bytes) -> bool:
        """Have the blob *digest* there; whether it had to be sent. What has arrived stays."""
        upload = _Upload()

        def once(end: float) -> bool:
            # also after a failure: the answer alone may have been lost
            if self._has_blob(digest, len(content), end):
                return bool(upload.location)
            self._send_blob(upload, digest, content, end)
            return True

        with self._session.saying(f"sending {digest}"):
            return self._session.persist(once)

    def get_blob(self, digest: str, size: int) -> bytes:
        """The blob *digest*, exactly *size* bytes."""
        with self._session.saying(f"fetching {digest}"):
            answer = self._session.ask("GET", f"blobs/{digest}", good=(200,), limit=size)
            return _proved(answer.body, digest)

    def download_blob(
        self, digest: str, size: int, sink: BinaryIO, *, step: Step, begun: int = 0
    ) -> None:
        """As `get_blob` to *sink*, which has its first *begun* bytes; it is not digested.

        A broken transfer goes on where it broke, as `https.download` says.
        """
        expected = Expected(size=size, by="its manifest names")
        with self._session.saying(f"fetching {digest}"):
            self._session.receive(f"blobs/{digest}", sink, expected, step=step, begun=begun)

    def put_manifest(self, content: bytes, media_type: str, name: str) -> bool:
        """Have the manifest *content* there as *name*, its digest or a tag; whether it was sent."""
        digest = _digest(content)
        with self._session.saying(f"sending manifest {name}"):
            told = self._session.ask(
                "HEAD", f"manifests/{name}", good=(200, 404), headers={"Accept": _ACCEPT}
            )
            if told.status == 200 and told.headers.get("Docker-Content-Digest") == digest:
                return False
            answer = self._session.ask(
                "PUT",
                f"manifests/{name}",
                good=(201,),
                body=content,
                headers={"Content-Type": media_type},
            )
            _agrees(answer, digest)
        return True

    def get_manifest(self, name: str) -> bytes | None:
        """The manifest or index *name*, a digest or a tag; None if there is none."""
        with self._session.saying(f"fetching manifest {name}"):
            answer = self._session.ask(
                "GET",
                f"manifests/{name}",
                good=(200, 404),
                headers={"Accept": _ACCEPT},
                limit=_MOST_MANIFEST,
            )
            if answer.status == 404:
                return None
            if is_digest(name):
                return _proved(answer.body, name)
            _agrees(answer, _digest(answer.body))
            return answer.body

    def referrers(self, digest: str) -> list[dict[str, Any]] | None:
        """Descriptors of what refers to *digest*; None if this registry keeps no such list."""
        with self._session.saying(f"asking what refers to {digest}"):
            answer = self._session.ask(
                "GET", f"referrers/{digest}", good=(200, 400, 404, 405, 501), limit=_MOST_MANIFEST
            )
        return descriptors(answer.body) if answer.status == 200 else None

    def _has_blob(self, digest: str, size: int, end: float) -> bool:
        answer = self._session.once("HEAD", f"blobs/{digest}", end, good=(200, 404))
        length = answer.headers.get("Content-Length")
        if answer.status == 200 and length not in (None, str(size)):
            told = shown(str(length), most=20)
            raise HttpError(f"says that it is there with {told} bytes, it has {size}")
        return answer.status == 200

    def _send_blob(self, upload: _Upload, digest: str, content: bytes, end: float) -> None:
        if upload.done:
            self._go_on(upload, len(content), end)
        else:
            answer = self._session.once("POST", "blobs/uploads/", end, good=(202,))
            upload.location = self._session.location(answer)
        while len(content) - upload.done > _WHOLE:
            piece = content[upload.done : upload.done + _PIECE]
            answer = self._session.once(
                "PATCH", upload.location, end, good=(202,), body=piece, headers=_part(upload, piece)
            )
            upload.location = self._session.location(answer)
            upload.done += len(piece)
        rest = content[upload.done :]
        target = with_query(upload.location, digest=digest)
        headers = _part(upload, rest) if upload.done else {"Content-Type": _OCTETS}
        answer = self._session.once("PUT", target, end, good=(201,), body=rest, headers=headers)
        _agrees(answer, digest)

    def _go_on(self, upload: _Upload, size: int, end: float) -> None:
        """Where the registry says that it was interrupted; from the start if it has forgotten."""
        answer = self._session.once("GET", upload.location, end, good=(204, 400, 404, 416))
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,15})", answer.headers.get("Range", ""))
        if answer.status == 204 and found and int(found[1]) < size:
            upload.done = int(found[1]) + 1
            upload.location = self._session.location(answer)
            return
        upload.done = 0
        raise AgainError("has forgotten the part that was sent")


def descriptors(index: bytes) -> list[dict[str, Any]]:
    """What an index lists, as far as it can be made out: each with a digest and a size."""
    return _sound(object_of(index).get("manifests"))


def layers(manifest: bytes) -> list[dict[str, Any]]:
    """As `descriptors`, for the layers of a manifest."""
    return _sound(object_of(manifest).get("layers"))


def _sound(listed: object) -> list[dict[str, Any]]:
    return [
        one
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
        and is_digest(str(one.get("digest")))
        and isinstance(one.get("size"), int)
        and one["size"] >= 0
    ]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _proved(content: bytes, digest: str) -> bytes:
    if _digest(content) != digest:
        raise HttpError(f"sends other bytes, which are {_digest(content)}: not taken")
    return content


def _agrees(answer: Answer, digest: str) -> None:
    """It need not tell a digest, but not another one."""
    told = answer.headers.get("Docker-Content-Digest", digest)
    if told != digest:
        raise HttpError(f"says that it is {shown(told, most=80)}, it is {digest}")


def _part(upload: _Upload, piece: bytes) -> dict[str, str]:
    last = upload.done + len(piece) - 1
    return {"Content-Type": _OCTETS, "Content-Range": f"{upload.done}-{last}"}
