"""Removes instances: root, state, and what no other instance needs. Data of others stays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files, trees
from pipeline.errors import ProblemsError, reason
from pipeline.host.roots import quota
from pipeline.host.roots.upgrade import tidy
from pipeline.host.state import layout as layouts
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, locked, prepare
from pipeline.program import to_type
from pipeline.progress import bar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from pipeline.host.state.records import Known


class UndeployError(ProblemsError):
    """What is not ours to remove, or could not be removed."""


@dataclass(frozen=True, slots=True)
class Remove:
    """An instance goes, with all its data; *root*: its root is still there."""

    suffix: str
    root: bool = True

    def __str__(self) -> str:
        """One line for `dry=yes`."""
        return f"remove nifty{self.suffix}{'' if self.root else ' (its root is gone already)'}"


def plan_undeploy(
    known: Known, roots: Collection[str], suffixes: Iterable[str] | None
) -> tuple[Remove, ...]:
    """Removals of *suffixes* (None: all instances) of those *known*; pure.

    *roots*: names below the prefix.

    One whose state is damaged goes like any other. Raises UndeployError with everything that is
    not ours.
    """
    there = {*(one.suffix for one in known.instances), *(one.suffix for one in known.damaged)}
    asked = sorted(there, key=records.order) if suffixes is None else tuple(suffixes)
    problems = [
        f"nifty{suffix}: is there and was not made by this program: it stays untouched"
        if f"nifty{suffix}" in roots
        else f"nifty{suffix}: not deployed"
        for suffix in asked
        if suffix not in there
    ]
    if problems:
        raise UndeployError("nothing was removed:", problems, hint=to_type("status lists them all"))
    return tuple(
        Remove(suffix, f"nifty{suffix}" in roots and bool(records.SUFFIX.fullmatch(suffix)))
        for suffix in asked
    )


def preview_undeploy(
    layout: Layout, known: Known, suffixes: Iterable[str] | None
) -> tuple[Remove, ...]:
    """The removals of `undeploy`, of those *known*: for `dry=yes`."""
    return plan_undeploy(known, layouts.instance_roots(layout), suffixes)


def undeploy(
    prefix: Path, suffixes: Iterable[str] | None, *, wait: bool = True
) -> tuple[Remove, ...]:
    """Remove instances that are stopped; what was removed.

    A root first loses its name, in one step, so that nobody meets half of one; killed after that,
    the next run removes the rest. Raises UndeployError, or LockedError without *wait*.
    """
    layout = Layout(prefix)
    prepare(layout)
    with locked(layout, wait=wait):
        trees.empty(layout.new)
        known = records.look(layout)
        todo = preview_undeploy(layout, known, suffixes)
        gone, problems = set(), []
        with (
            bar("undeploy", len(todo)) as step,
            trees.opened(layout.prefix) as at,
            trees.opened(layout.new) as new,
        ):
            for action in todo:
                name = f"nifty{action.suffix}"
                forget = quota.forgetting(at, name)
                trees.unlock(at, name)
                try:
                    if action.root:
                        os.rename(name, name, src_dir_fd=at, dst_dir_fd=new)
                    records.remove(layout, action.suffix)
                    gone.add(action.suffix)
                    trees.remove(new, name)
                    if forget:
                        forget(new)
                except OSError as error:
                    problems.append(f"{name}: {reason(error)}")
                step()
        tidy(layout, known.without(gone))
        files.sync(layout.prefix)
    if problems:
        raise UndeployError(
            f"{len(todo) - len(problems)} of {len(todo)} instances were removed:",
            problems,
            hint="stop what uses them, then run the same command again",
        )
    return todo
