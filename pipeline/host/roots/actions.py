"""What deploy can do to the disk, each a line that can be printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import some
from pipeline.host.roots.quota import told

if TYPE_CHECKING:
    from pipeline.host.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove what a dead run left in `new`."""

    leftover: str

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"remove .nifty/new/{self.leftover}, left by a run that was killed"


@dataclass(frozen=True, slots=True)
class StoreImage:
    """Keep the image on this host and write its shared part."""

    digest: str

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"write image {self.digest[:12]} to cbin/ and .nifty/images/"


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Make the state of an instance anew from its root; on *port*, if nothing says another."""

    suffix: str
    port: int | None

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"make the state of nifty{self.suffix} anew from its root: its file is damaged"


@dataclass(frozen=True, slots=True)
class Mend:
    """Put back files of an instance that are empty, as after a power failure."""

    suffix: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        lost = some((f"/{path}" for path in self.paths), most=3)
        return f"mend nifty{self.suffix}: {lost} lost their contents"


@dataclass(frozen=True, slots=True)
class Create:
    """Make an instance's root and record it; *finish*: its state is there already.

    The root never holds more than *disk* bytes; 0: no bound.
    """

    suffix: str
    number: int
    port: int
    finish: bool = False
    disk: int = 0

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        how = "finish" if self.finish else "create"
        bound = f", at most {told(self.disk)} of disk" if self.disk else ""
        return f"{how} nifty{self.suffix}, port {self.port}{bound}"


@dataclass(frozen=True, slots=True)
class WriteLists:
    """Write known_hosts and ssh_config anew from the state."""

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return "write .nifty/known_hosts and .nifty/ssh_config"


@dataclass(frozen=True, slots=True)
class Rebound:
    """An instance that has a bound on its disk gets another, in bytes; *new* 0: none."""

    suffix: str
    old: int
    new: int

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        if not self.new:
            return f"lift the bound of nifty{self.suffix}, {told(self.old)} of disk"
        return f"bound nifty{self.suffix} by {told(self.new)} of disk, not {told(self.old)}"


Action = Clean | StoreImage | Rebuild | Mend | Rebound | Create | WriteLists


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Actions in the order in which they are done; none if all is as wanted."""

    wanted: Wanted
    actions: tuple[Action, ...]
    warnings: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """For `dry=yes`: the warnings, then one line for each action, or that there is none."""
        told = tuple(str(action) for action in self.actions) or ("nothing to do",)
        return (*(f"warning: {warning}" for warning in self.warnings), *told)

    @property
    def creations(self) -> tuple[Create, ...]:
        """The instances to be made."""
        return tuple(action for action in self.actions if isinstance(action, Create))
