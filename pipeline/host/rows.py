"""What doctor is asked and what it answers: `Wanted`, and one `Row` for each thing looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.host.runners import RUNNERS
from pipeline.host.state import Runner, Users

if TYPE_CHECKING:
    from pipeline.host.runner import Cost

PORT_BASE = 2200
MIB = 1024 * 1024


class Status(Enum):
    """How a row stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Stage(Enum):
    """The command that would fail half-way; starting is always preceded by deploying."""

    DEPLOY = "deploy"
    START = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """So many instances, of this kind; *deployed* and *running* of them are there already.

    *own_ports* are those of instances that exist, which may well be taken, by themselves. The sizes
    are those of one instance: *disk* and *memory* in bytes; memory 0 is the runner's usual.
    """

    count: int
    first: int = 1
    prefix: Path = Path("/home")
    runner: Runner = Runner.NSPAWN
    register: bool = False
    users: Users = Users.PRIVATE
    ports: tuple[int, ...] = ()
    own_ports: frozenset[int] = frozenset()
    deployed: int = 0
    running: int = 0
    disk: int = 150_000
    inodes: int = 35
    memory: int = 0

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
    def to_deploy(self) -> int:
        """Instances still to be deployed."""
        return max(self.count - self.deployed, 0)

    @property
    def to_start(self) -> int:
        """Instances still to be started."""
        return max(self.count - self.running, 0)

    @property
    def all_ports(self) -> tuple[int, ...]:
        """The SSH port of each instance; may lie beyond 65535, which is for a row to say."""
        start = PORT_BASE + self.first
        return self.ports or tuple(range(start, start + self.count))

    @property
    def command(self) -> str:
        """What to type to have this host mended for what is wanted."""
        first = f" first={self.first}" if self.first != 1 else ""
        prefix = f" prefix={self.prefix}" if self.prefix != Path("/home") else ""
        register = " register=yes" if self.register else ""
        return f"doit doctor count={self.count}{first}{prefix}{register} fix=yes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing looked at: its value, what is needed, and what a person does about it.

    *why* says what goes wrong otherwise, *todo* what to do (empty when the row is ok). FAIL means
    that the command of *stage* would fail half-way; *fixable*, that fix=yes mends it.
    """

    name: str
    found: str
    needed: str
    status: Status
    why: str
    todo: str = ""
    stage: Stage = Stage.START
    fixable: bool = False


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
