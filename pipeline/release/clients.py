"""What each client of a release reads beside the images themselves: made of these, and named so.

Files at the top have their sums in SHA256SUMS. What lies in folders (oci/, streams/) has its own in
folders.sha256, which has one there: systemd-sysupdate refuses a SHA256SUMS with a folder in it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline.release import incus, layout, names, page, sysupdate
from pipeline.trust import sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.trust.keyring import Keyring


def in_folders(contents: Mapping[str, bytes], before: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file in a folder, by its path, of a release with *contents*.

    *before* are those of the release that was there. Raises OciError for images that cannot be one
    index.
    """
    return {**layout.of_release(contents, before), **incus.of_release(contents)}


def at_the_top(
    contents: Mapping[str, bytes], below: Mapping[str, bytes], ring: Keyring | None, url: str
) -> dict[str, bytes]:
    """The sums of what lies *below*, a transfer for each image if *url* is known, and the page."""
    made = {names.PAGE: page.page(contents, ring, url)}
    if below:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in below.items()}
        made[names.FOLDERS] = sums.text(digests, below=True)
    if url:
        images = {named.image for name in contents if (named := names.parse(name))}
        made |= {f"{image}.transfer": sysupdate.transfer(image, url) for image in sorted(images)}
    return made
