"""Which of the instances that are there the command line means."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from pipeline.commands.places import layout_of
from pipeline.errors import NiftyError, ProblemsError, UsageError, ends, in_lines
from pipeline.host.state import records
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pipeline.host.state.records import Damaged, Instance, Known
    from pipeline.settings import Settings


class NoneError(NiftyError):
    """There is no instance at all."""


class UnknownError(ProblemsError, UsageError):
    """Instances that were asked for and do not exist."""


def select(
    instances: Sequence[Instance],
    *,
    names: Sequence[str] = (),
    count: int | None = None,
    first: int = 1,
    damaged: Collection[str] = (),
) -> tuple[Instance, ...]:
    """Those of *instances* that the user means, in the order of *instances*, or of *names*.

    Suffixes in *damaged*, whose state cannot be used, are passed over. *names* are suffixes (`7`,
    `slick`) or whole names (`nifty7`); else *count* numbers from *first* on; else all. Raises
    UnknownError naming each that does not exist, NoneError if there are none.
    """
    if not instances and not damaged:
        raise NoneError("no instances here", hint=to_type("deploy count=10 start=yes"))
    if names:
        known = {instance.name: instance for instance in instances}
        known |= {instance.suffix: instance for instance in instances}
        lost = {*damaged, *(f"nifty{suffix}" for suffix in damaged)}
        return _found(dict.fromkeys(name for name in names if name not in lost), known)
    if count is None and first == 1:
        return tuple(instances)
    numbered = {one.suffix: one for one in instances if one.suffix.isdecimal()}
    if count is None:
        return tuple(one for suffix, one in numbered.items() if int(suffix) >= first)
    asked = (str(number) for number in range(first, first + count))
    return _found(dict.fromkeys(suffix for suffix in asked if suffix not in damaged), numbered)


def means(
    suffix: str, *, names: Sequence[str] = (), count: int | None = None, first: int = 1
) -> bool:
    """Whether `select` would choose nifty*suffix*, if there were one."""
    if names:
        return suffix in names or f"nifty{suffix}" in names
    if count is None and first == 1:
        return True
    is_number = suffix.isascii() and suffix.isdecimal()
    return is_number and int(suffix) in range(first, first + (count or 1 << 32))


def _found(wanted: Mapping[str, None], known: Mapping[str, Instance]) -> tuple[Instance, ...]:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UnknownError(
            f"{len(unknown)} of these instances {'does' if len(unknown) == 1 else 'do'} not exist:",
            in_lines(unknown),
            hint=to_type("status lists those that do"),
        )
    return tuple({known[name].name: known[name] for name in wanted}.values())


def known_there(settings: Settings) -> Known:
    """The state of all instances below the prefix: see `records.look`."""
    return records.look(layout_of(settings))


def chosen_and_damaged(
    settings: Settings, known: Known
) -> tuple[tuple[Instance, ...], tuple[Damaged, ...]]:
    """Of those *known* the instances the command line means, and such with damaged state."""
    names = settings.names if settings.name is None else (f"nifty{settings.name}",)
    count, first = settings.count, settings.first
    lost = [one.suffix for one in known.damaged]
    chosen = select(known.instances, names=names, count=count, first=first, damaged=lost)
    damaged = (
        one for one in known.damaged if means(one.suffix, names=names, count=count, first=first)
    )
    return chosen, tuple(damaged)


def selected(settings: Settings, known: Known) -> tuple[Instance, ...]:
    """Those *known* that the command line means: all, or name=, names=, count= and first=.

    Those whose state cannot be used are left out. Raises DamagedError if no other is meant.
    """
    chosen, damaged = chosen_and_damaged(settings, known)
    if not chosen:
        records.refuse(damaged)
    return chosen


def tells_damaged(function: Callable[[Settings], Known]) -> Callable[[Settings], None]:
    """*function*, which gives the state as it read it last: what is damaged of it is an error."""

    @wraps(function)
    def telling(settings: Settings) -> None:
        records.refuse(function(settings).damaged)

    return telling


def is_choosing(settings: Settings) -> bool:
    """Whether the command line means certain instances, not all there are."""
    some = settings.name is not None or bool(settings.names) or settings.count is not None
    return some or settings.first != 1


def names_of(suffixes: Sequence[str]) -> str:
    """The instances with these *suffixes* by their names, all or the first and the last."""
    return ends([f"nifty{suffix}" for suffix in suffixes])
