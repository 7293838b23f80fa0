"""POSIX access control lists as the kernel gives them: they hold user ids, so they move too."""

from __future__ import annotations

import struct

NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")
# linux/posix_acl_xattr.h: a version, then a tag, permissions and an id for each entry
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
_WITH_ID = (0x02, 0x08)  # ACL_USER, ACL_GROUP
_NO_ID = 0xFFFFFFFF


def shifted(value: bytes, by: int, *, highest: int) -> bytes:
    """The list with *by* added to every id in it; raises ValueError if that is outside 0-*highest*.

    So it does for what is no such list.
    """
    if len(value) % _ENTRY.size != _HEAD.size or _HEAD.unpack_from(value)[0] != _VERSION:
        raise ValueError("no access control list of version 2")
    parts = [value[: _HEAD.size]]
    for tag, permissions, number in _ENTRY.iter_unpack(value[_HEAD.size :]):
        moved = number
        if tag in _WITH_ID:
            moved = number + by
            if not 0 <= moved <= highest:
                raise ValueError(f"an id outside the user range: {number}")
        elif number != _NO_ID:
            raise ValueError("an id where none belongs")
        parts.append(_ENTRY.pack(tag, permissions, moved))
    return b"".join(parts)
