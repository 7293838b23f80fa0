"""What doctor is asked and what it answers: `Asked`, and one `Row` for each thing looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError, counted
from pipeline.host.roots.needs import USUAL, Needs
from pipeline.host.state.records import Runner, Users
from pipeline.host.units.runners import RUNNERS
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.host.units.runner import Cost


class Status(Enum):
    """How a row stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Stage(Enum):
    """The command that would fail half-way; starting is always preceded by deploying."""

    DEPLOY = "deploy"
    START = "start"


class PlanError(ProblemsError):
    """What is wanted cannot be done on this host as it is; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one instance takes that others cannot have: *port*, and *slot*, the range of its users.

    With the host's users it has a slot and no range. *is_new*: it is not deployed, or not wholly.
    *disk* is the most bytes that its root may hold, or is to; 0: no bound.
    """

    suffix: str
    port: int
    slot: int
    users: Users = Users.PRIVATE
    is_new: bool = True
    disk: int = 0

    @property
    def name(self) -> str:
        """`nifty7`."""
        return f"nifty{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Instances *claims* are asked for; with others that run, *count* will be there.

    *running* of them are there already, *registered* are known to machined. *kept_ports* and
    *kept_slots* are those of all instances deployed, and whose. *odd*: why some can never be, a
    line each. *is_stored*: the image is on this host. *memory* of one in bytes, 0 for the runner's
    usual. *disk* is the bound that was asked for, 0: none. *typed* are the variables of the command
    line, as `name=value`.
    """

    count: int
    claims: tuple[Claim, ...] = ()
    prefix: Path = Path("/home")
    runner: Runner = Runner.NSPAWN
    users: Users = Users.PRIVATE
    registered: int = 0
    running: int = 0
    kept_ports: Mapping[int, str] = field(default_factory=dict)
    kept_slots: Mapping[int, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()
    needs: Needs = USUAL
    is_stored: bool = False
    memory: int = 0
    disk: int = 0
    typed: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """What one idle instance takes of a host."""
        return RUNNERS[self.runner].cost

    @property
    def tasks(self) -> int:
        """Tasks of one idle instance."""
        return self.cost.tasks

    @property
    def bytes_running(self) -> int:
        """Memory of one idle instance, as measured at 1000 of them."""
        return self.memory or self.cost.memory

    @property
    def new(self) -> tuple[Claim, ...]:
        """Those still to be deployed."""
        return tuple(claim for claim in self.claims if claim.is_new)

    @property
    def to_start(self) -> int:
        """Instances still to be started."""
        return max(self.count - self.running, 0)

    @property
    def words(self) -> str:
        """What was asked for, in words."""
        many = len(self.claims)
        beside = self.count - many
        told = counted(many)
        return f"{told} beside {beside} that run" if beside > 0 else told

    @property
    def command(self) -> str:
        """What to type to have this host mended for what is wanted."""
        return to_type(" ".join(["doctor", *self.typed, "fix=yes"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing looked at: its value, what is needed, and what a person does about it.

    *why* says what goes wrong otherwise, *todo* what to do (empty when the row is ok). FAIL means
    that the command of *stage* would fail half-way; *fixable*, that fix=yes mends it. *detail* says
    the same of each instance, where that is more use to who deploys.
    """

    name: str
    found: str
    needed: str
    status: Status
    why: str
    todo: str = ""
    stage: Stage = Stage.START
    fixable: bool = False
    detail: tuple[str, ...] = ()


def unreadable(name: str, needed: str, why: str, *, stage: Stage = Stage.START) -> Row:
    """The row of a value this host does not show (to this user)."""
    return Row(
        name=name,
        found="unreadable",
        needed=needed,
        status=Status.WARN,
        why=why,
        todo="run doctor as root; if it is still unreadable, this kernel has no such limit",
        stage=stage,
    )
