"""What becomes of a certificate after it was made: renewed, extended, revoked, by its primary key.

Nothing of it is ever taken away: who checks an old signature asks what held when it was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import NiftyError
from pipeline.release import openpgp
from pipeline.release.openpgp import Made, Secret
from pipeline.trust import keyring, packets

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pipeline.trust.keyring import Certificate, Key
    from pipeline.trust.packets import Packet

_DAY = 86400
_USER_REVOKED = 0x30  # RFC 4880 section 5.2.1


class LifetimeError(NiftyError):
    """A certificate that cannot be changed so."""


def renewed(
    old: Certificate, top: Secret, *, now: datetime, days: int, signing_days: int, password: str
) -> Made:
    """*old* with a new signing key for *signing_days*, itself good for *days* from *now* or longer.

    *top* is its primary key. `primary` of the result is empty: that secret is what it was. Raises
    LifetimeError for one that is revoked.
    """
    _refuse_revoked(old, old.primary)
    moment = int(now.timestamp())
    sub = openpgp.generated(moment)
    certificate = _until(old, top, moment, days) + openpgp.subkey(
        top, sub, moment, end=moment + signing_days * _DAY
    )
    return Made(
        primary=b"",
        signing=openpgp.with_secrets(certificate, [sub.body(password)]),
        certificate=certificate,
        fingerprint=old.fingerprint,
    )


def extended(
    old: Certificate, top: Secret, *, now: datetime, days: int, signing_days: int
) -> bytes:
    """*old* with its newest signing key good for *signing_days* from *now*, itself for *days*.

    Nothing becomes shorter. Raises LifetimeError for what is revoked.
    """
    _refuse_revoked(old, old.primary)
    good = [key for key in old.subkeys if key.may_sign and not key.is_revoked]
    if not good:
        raise LifetimeError(
            f"{old.title} has no signing subkey that is not revoked", hint="doit key renew=yes"
        )
    last = max(good, key=lambda key: key.created)
    moment = int(now.timestamp())

    def bound(section: list[Packet]) -> bytes:
        if not _is(section[0], last):
            return b""
        embedded = (packets.statement(one.body).embedded for one in section[1:])
        end = _later(last, moment + signing_days * _DAY)
        back = next(filter(None, embedded), b"")
        return openpgp.binding(top, section[0].body, back, moment, end=end)

    return _with(_until(old, top, moment, days), bound)


def revoked(old: Certificate, top: Secret, key: Key, *, now: datetime) -> bytes:
    """*old* with *key*, its primary key or a subkey, revoked. Raises LifetimeError."""
    _refuse_revoked(old, key)
    moment = int(now.timestamp())
    made = b""
    for one in packets.packets(old.binary):
        # where RFC 4880 section 11.1 wants it: directly behind the key
        made += one.raw + (openpgp.revocation(top, one.body, moment) if _is(one, key) else b"")
    return made


def _refuse_revoked(certificate: Certificate, key: Key) -> None:
    if certificate.primary.is_revoked:
        raise LifetimeError(
            f"{certificate.title} is revoked, for ever", hint="doit key new=yes makes another"
        )
    if key.is_revoked:
        raise LifetimeError(f"the key {key.fingerprint} is revoked already")


def _until(old: Certificate, top: Secret, moment: int, days: int) -> bytes:
    """*old*, itself good for *days* from *moment* at least."""
    end = _later(old.primary, moment + days * _DAY)

    def certified(section: list[Packet]) -> bytes:
        kinds = {packets.statement(one.body).kind for one in section[1:]}
        if section[0].tag != packets.USER or _USER_REVOKED in kinds:
            return b""
        return openpgp.certification(
            top, section[0].body, moment, end=end, may_sign=old.primary.may_sign
        )

    return _with(old.binary, certified)


def _later(key: Key, end: int) -> int | None:
    return None if key.expires is None else max(end, int(key.expires.timestamp()))


def _with(certificate: bytes, more: Callable[[list[Packet]], bytes]) -> bytes:
    """*certificate* with what *more* says of each key and user behind its signatures."""
    sections: list[list[Packet]] = []
    for one in packets.packets(certificate):
        if one.tag == packets.SIGNATURE:
            sections[-1].append(one)
        else:
            sections.append([one])
    return b"".join(b"".join(one.raw for one in section) + more(section) for section in sections)


def _is(packet: Packet, key: Key) -> bool:
    is_key = packet.tag in (packets.PUBLIC_KEY, packets.PUBLIC_SUBKEY)
    return is_key and keyring.fingerprint(packet.body) == key.fingerprint
