"""Which instances the user asked for, and how."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ProblemsError, UsageError
from pipeline.host.state.records import Instance, Runner, Share, Users

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class WantedError(ProblemsError, UsageError):
    """Names or numbers that no instance can have."""


@dataclass(frozen=True, slots=True)
class Target:
    """An instance by its *suffix*; *port* None: as recorded, or the default of a new one."""

    suffix: str
    port: int | None = None

    @property
    def name(self) -> str:
        """`nifty7`."""
        return f"nifty{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for. *targets* come from `numbered` or `named`.

    *disk* bounds each root, in bytes, 0: by nothing; None: as it is, and a new one by nothing.
    """

    targets: tuple[Target, ...]
    prefix: Path = Path("/home")
    share: Share = Share.CBIN
    users: Users = Users.PRIVATE
    runner: Runner = Runner.NSPAWN
    boot: bool = False
    register: bool = False
    authorized_keys: Path | None = None
    disk: int | None = None

    def __post_init__(self) -> None:
        """Raises WantedError for a relative prefix: ssh_config holds it, and is read elsewhere."""
        if not self.prefix.is_absolute():
            raise WantedError(
                "this is no prefix:", [f"prefix={self.prefix}: give a path that begins with /"]
            )


def numbered(count: int, *, first: int = 1, port: int | None = None) -> tuple[Target, ...]:
    """*count* instances from number *first* on; with *port*, number N listens on *port* + N.

    Raises WantedError if there are none, or numbers below 1.
    """
    if count < 1 or first < 1:
        raise WantedError(
            "this is no range of instances:", [f"count={count} first={first}: at least 1 each"]
        )
    return tuple(
        Target(str(number), None if port is None else port + number)
        for number in range(first, first + count)
    )


def named(names: Iterable[str], *, port: int | None = None) -> tuple[Target, ...]:
    """Instances by name: `7`, `slick`, or `nifty7`; *port* is exactly the port of a single one.

    Raises WantedError with every name that is none.
    """
    suffixes = [name.removeprefix("nifty") if name != "nifty" else "" for name in names]
    problems = [problem for suffix in suffixes if (problem := _suffix_problem(suffix))]
    twice = [suffix for suffix, many in Counter(suffixes).items() if many > 1]
    problems += [f"nifty{suffix}: named more than once" for suffix in twice]
    if port is not None and len(suffixes) > 1:
        problems.append(f"port={port}: {len(suffixes)} instances cannot share a port")
    if not suffixes:
        problems.append("no name at all")
    if problems:
        raise WantedError("these are no names of instances:", problems)
    return tuple(Target(suffix, port) for suffix in suffixes)


def _suffix_problem(suffix: str) -> str | None:
    if suffix.isdecimal() and suffix.isascii():
        zeros = f"nifty{suffix}: a number from 1 on, without zeros before"
        return None if suffix[0] != "0" else zeros
    # with `nifty` a host name (RFC 1123), of at most 63 characters
    if suffix and not re.fullmatch(r"[a-z]([a-z0-9-]{0,56}[a-z0-9])?", suffix):
        rules = "small letters, digits and '-', a letter first and no '-' last, at most 58"
        return f"nifty{suffix!s}: after 'nifty' {rules}"
    return None


PORT_BASE = 2200


def meaning(some: Sequence[Instance]) -> str:
    """The variables that mean exactly *some* instances."""
    suffixes = [one.suffix for one in some]
    first = suffixes[0]
    if first.isdecimal():
        row = [str(number) for number in range(int(first), int(first) + len(suffixes))]
        if row == suffixes:
            return f"first={first} count={len(suffixes)}"
    return f"names={','.join(suffix or 'nifty' for suffix in suffixes)}"
