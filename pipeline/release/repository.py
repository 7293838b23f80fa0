"""What a repository holds: an index, its layers, and what refers to it; a registry's or a layout's.

What an index names is named by its digest, so who vouches for one digest vouches for all below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pipeline.errors import NiftyError, shown
from pipeline.image import archive
from pipeline.net.registry import descriptors, layers
from pipeline.net.session import RegistryError, object_of
from pipeline.program import to_type
from pipeline.release import names, oci, referrers
from pipeline.release.reader import RemoteError
from pipeline.trust import keyring, sums, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pipeline.progress import Step
    from pipeline.trust.keyring import Keyring
    from pipeline.trust.verify import Signed

LARGEST = archive.DEFAULT_LIMITS.max_bytes
# Of all that refers to an index; a registry may have taken them from anybody who may write there.
_MOST_REFERRERS = 64
_TITLE = "org.opencontainers.image.title"


class Repository(Protocol):
    """Where manifests and blobs are; every method as `net.registry.Registry`'s."""

    @property
    def title(self) -> str:
        """For messages."""

    def get_manifest(self, name: str) -> bytes | None:
        """The manifest or index *name*, a digest or a tag; None if there is none."""

    def get_blob(self, digest: str, size: int) -> bytes:
        """The blob *digest*, exactly *size* bytes."""

    def download_blob(
        self, digest: str, size: int, sink: BinaryIO, *, step: Step, begun: int = 0
    ) -> None:
        """As `get_blob` to *sink*, which has its first *begun* bytes; it is not digested."""

    def referrers(self, digest: str) -> list[dict[str, Any]] | None:
        """Descriptors of what refers to *digest*; None if no such list is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """SHA256SUMS that refer to an index, their signature, and the keyring beside them, or empty."""

    content: bytes
    signature: bytes
    ring: bytes


def top(repository: Repository, name: str) -> oci.Blob:
    """The index *name*, a tag or a digest. Raises RegistryError."""
    content = repository.get_manifest(name)
    if content is None:
        raise RegistryError(
            f"{repository.title}: there is no {name}",
            hint="name a tag that was pushed: oci://HOST/NAME:TAG" if name == "latest" else None,
        )
    if object_of(content).get("mediaType") != oci.INDEX:
        raise RegistryError(
            f"{repository.title}: {name} is no index of OCI",
            hint="only what this program pushed can be taken",
        )
    return oci.Blob.of(oci.INDEX, content)


def manifest(repository: Repository, descriptor: Mapping[str, Any]) -> bytes:
    """The manifest that *descriptor* names, of its size and type. Raises RegistryError."""
    digest, size = descriptor["digest"], descriptor["size"]
    content = repository.get_manifest(digest)
    if content is None:
        raise RegistryError(f"{repository.title}: there is no {digest}, though it is named")
    if len(content) != size:
        told = f"{repository.title}: {digest} has {len(content)} bytes, {size} were told"
        raise RegistryError(told)
    if object_of(content).get("mediaType") != oci.MANIFEST:
        raise RegistryError(f"{repository.title}: {digest} is no manifest of OCI")
    return content


def layer(repository: Repository, index: oci.Blob, architecture: str) -> dict[str, Any]:
    """The descriptor of the published `.tar.zst` for *architecture* (uname's word) in *index*.

    Raises RegistryError if there is none.
    """
    platform = oci.PLATFORMS.get(architecture, {})
    for one in descriptors(index.content):
        is_ours = _described(one, "annotations").get(oci.ZSTD_ANNOTATION) == "true"
        if is_ours and platform and platform.items() <= _described(one, "platform").items():
            found = layers(manifest(repository, one))
            if len(found) != 1 or found[0].get("mediaType") != oci.ZSTD:
                raise RegistryError(f"{repository.title}: {one['digest']} is not one layer of zstd")
            if not 0 < found[0]["size"] <= LARGEST:
                told = f"{found[0]['size']} bytes, at most {LARGEST} are taken"
                raise RegistryError(f"{repository.title}: {found[0]['digest']}: {told}")
            return found[0]
    raise RegistryError(
        f"{repository.title}: has no image for {shown(architecture) or 'nothing'} as zstd",
        hint="only what this program pushed can be taken",
    )


def about(repository: Repository, digest: str) -> list[dict[str, Any]]:
    """Descriptors of what refers to *digest*, listed by the registry or below the fallback tag."""
    listed = repository.referrers(digest)
    if listed is None:
        listed = descriptors(repository.get_manifest(referrers.fallback_tag(digest)) or b"")
    if len(listed) > _MOST_REFERRERS:
        told = f"{len(listed)} refer to {digest}, at most {_MOST_REFERRERS} are looked at"
        raise RegistryError(f"{repository.title}: {told}")
    return listed


def documents(
    repository: Repository, descriptor: Mapping[str, Any], digest: str
) -> dict[str, dict[str, Any]]:
    """The files of the artifact that *descriptor* names, by their names; none if not of *digest*.

    Raises RegistryError.
    """
    content = manifest(repository, descriptor)
    if _described(object_of(content), "subject").get("digest") != digest:
        return {}
    return {
        title: one
        for one in layers(content)
        if isinstance(title := _described(one, "annotations").get(_TITLE), str)
    }


def signatures(repository: Repository, digest: str) -> Iterator[Sums]:
    """The sums that refer to the index *digest*, as often as they were signed.

    Raises RegistryError.
    """
    for one in about(repository, digest):
        if one.get("artifactType", referrers.SUMS) != referrers.SUMS:
            continue
        found = documents(repository, one, digest)
        if sums.NAME not in found:
            continue
        limits = {sums.NAME: sums.LIMIT, sums.SIGNATURE: verify.LIMIT, names.KEYRING: keyring.LIMIT}
        content, signature, ring = (
            blob(repository, found.get(name), limit) for name, limit in limits.items()
        )
        yield Sums(content=content, signature=signature, ring=ring)


def vouched(
    repository: Repository, index: oci.Blob, ring: Keyring, now: datetime
) -> tuple[Signed, dict[str, str], Sums]:
    """Who of *ring* signed sums that refer to *index*, the newest time; and the sums, read.

    Raises SignatureError if nobody did, RegistryError if there are none.
    """
    best: tuple[Signed, dict[str, str], Sums] | None = None
    why: NiftyError = RemoteError(
        f"{repository.title}: {index.digest} is signed by nobody: no {sums.NAME} refers to it",
        hint=f"pin it (@sha256:… or #sha256=…); {to_type('push')} sends them when it is published",
    )
    for one in signatures(repository, index.digest):
        name = f"{repository.title}: {sums.NAME}"
        try:
            if not one.signature:
                raise RemoteError(f"{name}: not signed")
            signed = verify.verify(one.content, one.signature, ring, name=name, now=now)
            listed = sums.read(one.content, name=name)
        except NiftyError as error:
            why = error
            continue
        if best is None or signed.created > best[0].created:
            best = signed, listed, one
    if best is None:
        raise why
    return best


def archive_of(listed: Mapping[str, str], sha256: str) -> str:
    """What the release calls the archive with that *sha256*; empty if it has none."""
    found = sorted(name for name, digest in listed.items() if digest == sha256)
    return next((one for one in found if one.endswith(".tar.zst")), "")


def blob(repository: Repository, descriptor: Mapping[str, Any] | None, limit: int) -> bytes:
    """What *descriptor* names, at most *limit* bytes; nothing if there is no such file."""
    if descriptor is None:
        return b""
    if descriptor["size"] > limit:
        told = f"{descriptor['digest']} has {descriptor['size']} bytes, at most {limit} are read"
        raise RegistryError(f"{repository.title}: {told}")
    return repository.get_blob(descriptor["digest"], descriptor["size"])


def _described(one: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = one.get(key)
    return found if isinstance(found, dict) else {}
