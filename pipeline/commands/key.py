"""`doit key`: a key that signs releases is made, renewed, extended, revoked, or shown."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.tables import print_json, print_table
from pipeline.errors import NiftyError, UsageError
from pipeline.progress import say
from pipeline.release import keys, lifetime, names, openpgp
from pipeline.trust import keyring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.release.openpgp import Secret
    from pipeline.settings import Settings
    from pipeline.trust.keyring import Certificate, Key

_GOES = {
    keys.PRIMARY: "offline: a drive in a drawer. It renews and revokes",
    keys.SIGNING: f"what signs: key= of doit publish, or {keys.VARIABLE} of a CI",
    names.KEYRING: "to doit publish keyring=; to who deploys, /etc/systemd/import-pubring.gpg",
    names.ARMORED: "the same as text, for a web page or a mail",
}
_SIGNING_DAYS = 396  # thirteen months: a month to renew what is renewed each year


def run(settings: Settings) -> None:
    """Make a key, change one, or show what key=, the environment or keyring= hold."""
    asked = {
        "new": settings.new,
        "renew": settings.renew,
        "extend": settings.extend,
        "revoke": bool(settings.revoke),
    }
    wanted = [name for name, is_asked in asked.items() if is_asked]
    if len(wanted) > 1:
        raise UsageError(f"{'= and '.join(wanted)}= are different things: one at a time")
    if settings.new:
        _make(settings)
    elif wanted:
        _change(settings)
    else:
        _show(settings)


def _make(settings: Settings) -> None:
    if not settings.owner:
        raise UsageError(
            "whose key?", hint="doit key new=yes owner='Nifty <nifty@example.org>' to=FOLDER"
        )
    password = os.environ.get(keys.PASSWORD, "")
    days = _days(settings)
    made = openpgp.make(
        settings.owner,
        now=datetime.now(UTC),
        days=days,
        signing_days=min(_SIGNING_DAYS, days),
        password=password,
    )
    secrets = {keys.PRIMARY: made.primary, keys.SIGNING: made.signing}
    _write(settings, secrets, made.certificate)
    say(f"fingerprint {made.fingerprint}: tell it where the files are not")
    if not password:
        say(f"neither secret has a password; {keys.PASSWORD} in the environment sets one")


def _days(settings: Settings) -> int:
    return settings.years * 365 + settings.years // 4


def _change(settings: Settings) -> None:
    """Renew, extend or revoke, with the primary key, in the keyring that is published."""
    found = keys.given(settings.key, os.environ)
    if found is None or not settings.keyring:
        raise UsageError(
            "which key, and in which keyring?",
            hint=f"key={keys.PRIMARY} keyring={names.KEYRING} as it is published now: "
            "what is in there stays",
        )
    _own, top = keys.primary(*found, os.environ)
    ring = keyring.load(Path(settings.keyring))
    old = ring.find(top.fingerprint.hex().upper())
    if old is None:
        raise NiftyError(
            f"{settings.keyring}: does not hold {_own.title}", hint="is it that key's keyring?"
        )
    secrets, changed = _changed(settings, old[0], top)
    others = (changed if one is old[0] else one.binary for one in ring.certificates)
    _write(settings, secrets, b"".join(others))
    say(f"publish it, and have everybody who deploys replace theirs: keyring={names.KEYRING}")


def _changed(settings: Settings, old: Certificate, top: Secret) -> tuple[dict[str, bytes], bytes]:
    """New secrets by file name, and what becomes of *old*."""
    now = datetime.now(UTC)
    days, signing_days = _days(settings), min(_SIGNING_DAYS, _days(settings))
    if settings.renew:
        password = os.environ.get(keys.PASSWORD, "")
        made = lifetime.renewed(
            old, top, now=now, days=days, signing_days=signing_days, password=password
        )
        return {keys.SIGNING: made.signing}, made.certificate
    if settings.extend:
        return {}, lifetime.extended(old, top, now=now, days=days, signing_days=signing_days)
    key = old.key_of(settings.revoke)
    if key is None:
        there = ", ".join(one.fingerprint for one in (old.primary, *old.subkeys))
        raise UsageError(f"revoke={settings.revoke}: no key of {old.title}", hint=f"it has {there}")
    return {}, lifetime.revoked(old, top, key, now=now)


def _write(settings: Settings, secrets: Mapping[str, bytes], certificates: bytes) -> None:
    """Put the files into to=, and say where each goes."""
    if not settings.to:
        raise UsageError(
            "where to?",
            hint="to=FOLDER, outside of every checkout: a secret must not be committed",
        )
    contents = {
        **secrets,
        names.KEYRING: certificates,
        names.ARMORED: keys.armored(certificates),
    }
    written = keys.write(Path(settings.to), contents)
    rows = [
        (str(path), "secret" if path.name in secrets else "public", _GOES[path.name])
        for path in written
    ]
    print_table(("file", "is", "goes"), rows)
    if keys.SIGNING in secrets:
        signing = Path(settings.to) / keys.SIGNING
        say(f"for a CI: base64 -w0 {signing}, pasted as its secret {keys.VARIABLE}")


def _show(settings: Settings) -> None:
    if settings.keyring:
        certificates: Iterable[Certificate]
        certificates = keyring.load(Path(settings.keyring)).certificates
    else:
        found = keys.given(settings.key, os.environ)
        if found is None:
            raise UsageError(
                "which key?",
                hint=f"key=FILE, keyring=FILE or {keys.VARIABLE}; new=yes makes one, "
                "renew=yes, extend=yes and revoke=FINGERPRINT change it",
            )
        certificates = [keys.public(*found)]
    rows = [row for one in certificates for row in _rows(one)]
    if settings.format == "json":
        print_json(rows)
        return
    head = ("fingerprint", "is for", "made", "expires", "state", "owner")
    print_table(head, [tuple(map(str, row.values())) for row in rows])


def _rows(certificate: Certificate) -> Iterable[dict[str, str]]:
    for key in (certificate.primary, *certificate.subkeys):
        end = certificate.expiry(key)
        yield {
            "fingerprint": key.fingerprint,
            "use": _use(certificate, key),
            "made": f"{key.created:%Y-%m-%d}",
            "expires": f"{end:%Y-%m-%d}" if end else "never",
            "state": _state(certificate, key),
            "owner": certificate.users[0] if certificate.users else "",
        }


def _use(certificate: Certificate, key: Key) -> str:
    words = ["certify"] if key is certificate.primary else []
    return "+".join([*words, *(["sign"] if key.may_sign else [])]) or "other"


def _state(certificate: Certificate, key: Key) -> str:
    now = datetime.now(UTC)
    if certificate.primary.is_revoked or key.is_revoked:
        return "revoked"
    end = certificate.expiry(key)
    if end is not None and end <= now:
        return "expired"
    return "good" if end is None else f"{(end - now).days} days left"
