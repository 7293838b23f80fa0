"""From what and by whom an image was built: an in-toto statement with SLSA's provenance, signed.

Without a time of day, and of nothing but the recipes, so that who builds again makes the same
statement and may put a signature of their own beside the first.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://slsa.dev/spec/v1.0/provenance, and DSSE for the envelope:
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.builder.recipes.component import Https
from pipeline.release import origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.builder.recipes.image import Package
    from pipeline.image.manifest import Manifest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Who built, as URIs: *kind* says how to repeat it, *name* who did it.

    *commit* is that of this program, with *changed* files or not; None: it is not known.
    """

    name: str
    kind: str
    commit: str | None = None
    changed: bool = False


def statement(
    manifest: Manifest, recipes: Recipes, subjects: Mapping[str, str], builder: Builder
) -> bytes:
    """The statement that *builder* made *subjects*, sha256 by file name, of these recipes.

    UTF-8, the same bytes each time. Raises OriginError if the image was made of other recipes.
    """
    origin.check(manifest, recipes)
    outer = {"image": manifest.name, "architecture": manifest.needs.architecture}
    inner = {"changed": builder.changed} if builder.commit else {}
    table = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": builder.kind,
                "externalParameters": outer,
                "internalParameters": inner,
                "resolvedDependencies": [*_materials(manifest, recipes, builder)],
            },
            "runDetails": {"builder": {"id": builder.name}},
        },
    }
    return json.dumps(table, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _materials(manifest: Manifest, recipes: Recipes, builder: Builder) -> Iterator[dict[str, Any]]:
    """ResourceDescriptors of sources, patches, packages, the compiler and this program."""
    image = recipes.images.get(manifest.name)
    for record in manifest.components:
        component = recipes.components[record.name]
        yield _fetched(component)
        for patch in component.patch:
            yield {
                "name": f"recipes/components/{component.name}/{patch.file}",
                "digest": {"sha256": patch.sha256},
            }
    for package in image.package if image else ():
        yield _fetched(package)
    for name, version in sorted({tool for item in manifest.components for tool in item.tools}):
        yield {"name": name, "uri": f"pkg:pypi/{name}@{version}"}
    if builder.commit:
        yield {"name": "nifty", "digest": {"gitCommit": builder.commit}}


def _fetched(item: Component | Package) -> dict[str, Any]:
    url = next((place.url for place in item.location if isinstance(place, Https)), None)
    found = {"name": item.source.file, "digest": {"sha256": item.source.sha256}}
    return {**found, "uri": url} if url else found


def pae(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of *payload* and its type."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """The name of *key* in an envelope: hex sha256 of its SubjectPublicKeyInfo (RFC 8410)."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def envelope(payload: bytes, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """*payload*, a statement, with a signature of each of *keys*: the same bytes each time."""
    signatures = [
        {"keyid": key_id(key.public_key()), "sig": _base64(key.sign(pae(payload)))} for key in keys
    ]
    table = {
        "payload": _base64(payload),
        "payloadType": PAYLOAD,
        "signatures": sorted(signatures, key=lambda one: one["keyid"]),
    }
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
