"""A transfer for systemd-sysupdate, ready for /etc/sysupdate.d (sysupdate.d(5))."""

from __future__ import annotations

# %a: this machine's architecture, in the word that stands in the files' names.
_TEXT = """\
# In /etc/sysupdate.d/ systemd-sysupdate keeps {image} in /var/lib/machines up to date; before
# systemd 257 it is to be called {image}.conf. nifty-keyring.pgp goes to
# /etc/systemd/import-pubring.gpg.

[Transfer]
Verify=yes

[Source]
Type=url-tar
Path={path}
MatchPattern={image}_@v_%a.tar.xz

[Target]
Type=directory
Path=/var/lib/machines
MatchPattern={image}_@v
InstancesMax=3
"""


def transfer(image: str, url: str) -> bytes:
    """The file for *image* of the release that is served at *url*, which ends with a slash."""
    return _TEXT.format(image=image, path=url.replace("%", "%%")).encode()
