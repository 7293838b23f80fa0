"""`doit key`: a key that signs releases is made (new=yes), or shown with how long it is good."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.tables import print_json, print_table
from pipeline.errors import UsageError
from pipeline.progress import say
from pipeline.release import keys, names, openpgp
from pipeline.trust import keyring

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.settings import Settings
    from pipeline.trust.keyring import Certificate, Key

_SIGNING_DAYS = 396  # thirteen months: a month to renew what is renewed each year


def run(settings: Settings) -> None:
    """Make a key, or show what key=, the environment or keyring= hold."""
    if settings.new:
        _make(settings)
    else:
        _show(settings)


def _make(settings: Settings) -> None:
    if not settings.owner:
        raise UsageError(
            "whose key?", hint="doit key new=yes owner='Nifty <nifty@example.org>' to=FOLDER"
        )
    if not settings.to:
        raise UsageError(
            "where to?",
            hint="to=FOLDER, outside of every checkout: a secret must not be committed",
        )
    password = os.environ.get(keys.PASSWORD, "")
    days = settings.years * 365 + settings.years // 4
    made = openpgp.make(
        settings.owner,
        now=datetime.now(UTC),
        days=days,
        signing_days=min(_SIGNING_DAYS, days),
        password=password,
    )
    primary, signing, binary, text = keys.write(
        Path(settings.to), made, (names.KEYRING, names.ARMORED)
    )
    rows = [
        (str(primary), "secret", "offline: a drive in a drawer. It renews and revokes"),
        (str(signing), "secret", f"what signs: key= of doit publish, or {keys.VARIABLE} of a CI"),
        (str(binary), "public", "to who deploys: keyring=, /etc/systemd/import-pubring.gpg"),
        (str(text), "public", "the same as text, for a web page or a mail"),
    ]
    print_table(("file", "is", "goes"), rows)
    say(f"fingerprint {made.fingerprint}: tell it where the files are not")
    say(f"for a CI: base64 -w0 {signing}, pasted as its secret {keys.VARIABLE}")
    if not password:
        say(f"neither secret has a password; {keys.PASSWORD} in the environment sets one")


def _show(settings: Settings) -> None:
    if settings.keyring:
        certificates: Iterable[Certificate]
        certificates = keyring.load(Path(settings.keyring)).certificates
    else:
        found = keys.given(settings.key, os.environ)
        if found is None:
            raise UsageError(
                "which key?",
                hint=f"key=FILE, keyring=FILE or {keys.VARIABLE}; new=yes makes one",
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
