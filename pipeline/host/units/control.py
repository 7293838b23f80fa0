"""Starts and stops instances, many at a time, and has them start with the host.

Started means that SSH answers, not that a process exists; stopped means that nothing is left.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pipeline import files, progress
from pipeline.errors import ProblemsError, in_lines
from pipeline.host.state.records import SUFFIX
from pipeline.host.units import banner, cgroup, systemd, watch
from pipeline.host.units.runner import place
from pipeline.host.units.runners import RUNNERS
from pipeline.host.units.unit_files import DIRECTORY, TARGET, group_of, unit_of
from pipeline.program import to_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pipeline.host.state.records import Instance
    from pipeline.progress import Step

# Seconds without any news before waiting is given up: a count of instances takes as long as it
# takes, a standstill does not end by itself.
PATIENCE = 90.0

# A unit that rests after so many seconds without news is not about to start: `poweroff` in its
# inittab, say, or a failed assertion. Before, its turn may not have come yet.
_SETTLED = 10.0

# Seconds between two looks, and how many times longer than its own work: a look at ten thousand is
# half a second of the processors that they start with.
_POLL = 0.1
_IDLE_PART = 4

_IN_DETAIL = 5


class FleetError(ProblemsError):
    """Instances that did not start or did not stop, the first few of them in detail."""


def start(
    instances: Sequence[Instance],
    *,
    known: Sequence[Instance] = (),
    patience: float = PATIENCE,
) -> None:
    """Start *instances* and return when every one of them answers SSH.

    Starting what runs already changes nothing. *known*: all there are, to name who has the port of
    another. Raises FleetError with those that failed, or were silent when there had been no news
    for *patience* seconds, and what their journals say.
    """
    began = time.time()
    _forget_failures(instances)
    systemd.start(map(unit_of, instances))
    with progress.bar("start", len(instances)) as step:
        missing = _wait_for_banners(instances, step, patience)
    if missing:
        raise FleetError(
            f"{len(missing)} of {len(instances)} instances do not answer SSH:",
            _described(missing, partial(_reasons, since=began, known=known or instances)),
            hint=f"journalctl -u {unit_of(missing[0])}; "
            f"{to_type(f'doctor count={len(instances)}')}",
        )


def stop(instances: Sequence[Instance], *, patience: float = PATIENCE) -> None:
    """Stop *instances* and return when no process of theirs is left.

    Raises FleetError with those that still run when there had been no news for *patience* seconds.
    """
    systemd.stop(map(unit_of, instances))
    with progress.bar("stop", len(instances)) as step:
        left = _wait_for_rest(instances, step, patience)
    if left:
        raise FleetError(
            f"{len(left)} of {len(instances)} instances still run:",
            _described(left, _processes),
            hint=f"systemctl kill --signal=KILL {unit_of(left[0])}",
        )


def enable(instances: Sequence[Instance]) -> None:
    """Start *instances* with the host from now on; those that do already are left alone."""
    if instances:
        systemd.enable((TARGET, *map(unit_of, instances)))
        _keep_links()


def disable(instances: Sequence[Instance]) -> None:
    """Do not start *instances* with the host any more; what runs now goes on."""
    systemd.disable(map(unit_of, instances))
    _keep_links()


def _keep_links() -> None:
    """Have the links of what starts with the host on the disk: systemctl does not wait for that."""
    for folder in (DIRECTORY, DIRECTORY / f"{TARGET}.wants", DIRECTORY / "multi-user.target.wants"):
        with suppress(OSError):
            files.sync_folder(folder)


def enabled(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Those that start with the host: one deployed before may have been enabled later."""
    wants = DIRECTORY / f"{TARGET}.wants"
    return tuple(one for one in instances if (wants / unit_of(one)).is_symlink())


def is_enabled(suffix: str) -> bool:
    """Whether nifty*suffix* starts with the host, by whichever runner."""
    wants = DIRECTORY / f"{TARGET}.wants"
    return any((wants / place(runner, suffix).unit).is_symlink() for runner in RUNNERS.values())


def retire(instances: Sequence[Instance]) -> None:
    """Have systemd forget *instances*, which are stopped: neither enabled nor failed any more."""
    disable(enabled(instances))
    _forget_failures(instances)


def end_unknown(suffixes: Sequence[str]) -> None:
    """Stop and disable what runs the instances of *suffixes*, by whichever runner that is."""
    units = [
        place(runner, suffix).unit
        for suffix in suffixes
        if SUFFIX.fullmatch(suffix)
        for runner in RUNNERS.values()
    ]
    known = systemd.states(units) if units else {}
    systemd.stop(unit for unit in units if unit in known)
    wants = DIRECTORY / f"{TARGET}.wants"
    systemd.disable(unit for unit in units if (wants / unit).is_symlink())
    systemd.forget_failures(unit for unit in units if known.get(unit) is systemd.State.FAILED)


def _forget_failures(instances: Sequence[Instance]) -> None:
    state = watch.states(instances)
    failed = [one for one in instances if state[one.name] is systemd.State.FAILED]
    systemd.forget_failures(map(unit_of, failed))


def _wait_for_banners(
    instances: Sequence[Instance], step: Step, patience: float
) -> tuple[Instance, ...]:
    """Those that never answered, once all others did.

    What answers where somebody else listens, too, is no instance's answer: that one has failed.
    """
    pending = {one.port: one for one in instances}
    failed: dict[int, Instance] = {}
    news = time.monotonic()
    while pending and (quiet := time.monotonic() - news) < patience:
        began = time.process_time()
        answering = banner.answering(pending)
        held = watch.holders(pending.values(), ())
        gone = {port: one for port, one in pending.items() if one.name in held}
        answering -= gone.keys()
        if not (answering or gone):
            gone = _given_up(pending, settled=quiet > _SETTLED)
        if answering or gone:
            news = time.monotonic()
            step(len(answering))
        failed |= gone
        done = answering | gone.keys()
        pending = {port: one for port, one in pending.items() if port not in done}
        if pending:
            rest(began)
    return tuple((failed | pending).values())


def _given_up(pending: Mapping[int, Instance], *, settled: bool) -> dict[int, Instance]:
    """Those that systemd will not start any more."""
    state = watch.states(tuple(pending.values()))
    return {
        port: one
        for port, one in pending.items()
        if state[one.name] is systemd.State.FAILED or (settled and state[one.name].is_at_rest)
    }


def _wait_for_rest(
    instances: Sequence[Instance], step: Step, patience: float
) -> tuple[Instance, ...]:
    """Those that still run when the others have stopped."""
    top = cgroup.hierarchy()
    pending = tuple(instances)
    news = time.monotonic()
    while True:
        began = time.process_time()
        state = watch.states(pending)
        left = tuple(
            one
            for one in pending
            if not state[one.name].is_at_rest or cgroup.processes(top / group_of(one))
        )
        if len(left) < len(pending):
            news = time.monotonic()
            step(len(pending) - len(left))
        if not left or time.monotonic() - news > patience:
            return left
        pending = left
        rest(began)


def rest(began: float) -> None:
    """Wait until the next look; the last one *began* at that process_time."""
    time.sleep(max(_POLL, _IDLE_PART * (time.process_time() - began)))


def _described(
    instances: Sequence[Instance], detail: Callable[[Instance], Sequence[str]]
) -> Iterator[str]:
    """The first few with their *detail*, the others by name."""
    for one in instances[:_IN_DETAIL]:
        yield f"{one.name} (port {one.port}):"
        yield from (f"  | {line}" for line in detail(one))
    yield from in_lines([one.name for one in instances[_IN_DETAIL:]])


def _reasons(instance: Instance, *, since: float, known: Sequence[Instance]) -> tuple[str, ...]:
    """Who has its port, or else what its journal says."""
    held = watch.holders((instance,), known).get(instance.name)
    if held is not None:
        return (f"port {instance.port} is taken by {held} (ss -ltnp)",)
    return systemd.journal(unit_of(instance), 5, since=since) or ("nothing in the journal",)


def _processes(instance: Instance) -> tuple[str, ...]:
    numbers = cgroup.processes(cgroup.hierarchy() / group_of(instance))
    return (f"processes: {' '.join(map(str, numbers[:20])) or 'none, but its unit is not done'}",)
