"""rename(2) that never replaces anything (renameat2(2), RENAME_NOREPLACE)."""

from __future__ import annotations

import ctypes
import errno
import os

_NOREPLACE = 1
# File systems that do not know the flag say EINVAL, kernels and libraries before it ENOSYS.
_UNKNOWN = (errno.EINVAL, errno.ENOSYS)


class Mover:
    """The system call, looked up once."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._call = getattr(libc, "renameat2", None)

    def move(self, source: int, name: bytes, target: int, new_name: bytes) -> None:
        """Move *name* in directory *source* to *new_name* in *target*, on the same file system.

        Raises FileExistsError if something has that name: plain rename would replace an empty
        directory.
        """
        if self._call is not None:
            if self._call(source, name, target, new_name, _NOREPLACE) == 0:
                return
            error = ctypes.get_errno()
            if error not in _UNKNOWN:
                raise OSError(error, os.strerror(error), new_name.decode(errors="replace"))
        try:
            os.stat(new_name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        else:
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), new_name.decode(errors="replace")
            )
