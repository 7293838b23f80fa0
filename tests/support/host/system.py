"""A system in which tests type commands as root: booted in a container, or in a virtual machine."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.run import Completed


class System(ABC):
    """What runs programs as root, the checkout and the running Python at their outer paths."""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float = 60.0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = "/",
    ) -> Completed:
        """Run *argv* inside as root, in all the system's namespaces.

        *env* is added to a clean environment. Raises ProgramError as `pipeline.run.run` does; a
        program past its *timeout* (seconds) is killed.
        """

    def put(self, path: str | Path, content: bytes, mode: int = 0o644) -> None:
        """Write *content* to *path* inside, making its directories."""
        self.run(["install", "-D", f"--mode={mode:o}", "/dev/stdin", str(path)], stdin=content)

    def get(self, path: str | Path) -> bytes:
        """The content of the file *path* inside; raises ProgramError when there is none."""
        return base64.b64decode(self.run(["base64", str(path)]).stdout)
