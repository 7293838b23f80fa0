"""`doit firewall`: rules for the instances' ports are printed, loaded, or taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands.choose import known_there, selected
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.errors import UsageError, counted
from pipeline.host import firewall as opening
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Print the rules that open the instances' ports, load them, or take them back."""
    kind = opening.Kind(settings.firewall) if settings.firewall else opening.kind()
    is_nft = kind is opening.Kind.NFT
    if settings.apply and settings.undo:
        raise UsageError("apply=yes and undo=yes contradict each other")
    if settings.undo:
        as_root("firewall")
        gone = opening.undo_nft(layout_of(settings)) if is_nft else opening.undo_firewalld()
        say("closed" if gone else "nothing to undo")
        return
    ports = [one.port for one in selected(settings, known_there(settings))]
    if not settings.apply:
        terminal.result(opening.ruleset(ports) if is_nft else opening.service(ports))
        return
    as_root("firewall")
    how = (
        opening.apply_nft(ports, layout_of(settings)) if is_nft else opening.apply_firewalld(ports)
    )
    say(f"{counted(len(ports), 'port')}: {opening.elements(ports)}; {how}")
    for chain in opening.blocking() if is_nft else ():
        say(
            f"{chain.family} {chain.table} {chain.name} drops what it does not accept, and no rule "
            "of another table can change that; it needs one of its own:"
        )
        terminal.result(f"{opening.snippet(chain, ports)}\n")
