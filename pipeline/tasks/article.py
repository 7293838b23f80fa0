"""The tasks for the rest of what the article shows: audit, shell, telnet, firewall, console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.errors import NiftyError, UsageError
from pipeline.progress import say
from pipeline.tasks import build
from pipeline.tasks.actions import PLAIN_IO, Task, action
from pipeline.tasks.host import as_root, image_path, layout_of, selected, task
from pipeline.tasks.report import print_json, print_table

if TYPE_CHECKING:
    from pipeline.build.audit import Finding
    from pipeline.settings import Settings


def audit(settings: Settings) -> Task:
    """Known vulnerabilities of the image's components."""
    return {
        "actions": [(action(_audit), [settings])],
        "uptodate": [False],
        "io": PLAIN_IO,
        "meta": {"quiet": True},
    }


def _audit(settings: Settings) -> None:
    from pipeline.build import audit as auditing  # noqa: PLC0415 (pydantic)

    known = build.load()
    found = auditing.audit(known, build.chosen(known, settings).components)
    if settings.format == "json":
        print_json([_flat(finding) for finding in found])
    else:
        lines = [
            (one.cve.id, f"{one.component} {one.version}", one.status, one.cve.where, one.reason)
            for one in found
        ]
        print_table(("CVE", "component", "status", "where", "because"), lines)
    left = [one.cve.id for one in found if one.status is auditing.Status.OPEN]
    if left:
        raise NiftyError(
            f"{len(left)} open: {', '.join(left)}",
            hint="doit outdated; or a patch in the recipe, or the option off",
        )


def _flat(finding: Finding) -> dict[str, object]:
    return {
        "component": finding.component,
        "version": finding.version,
        "status": finding.status.value,
        "because": finding.reason,
        **finding.cve.model_dump(mode="json"),
    }


@task
def shell(settings: Settings) -> None:
    """Be a shell in an image, deployed or not, without root."""
    from pipeline.host import shell as entering  # noqa: PLC0415

    terminal.flush()
    raise SystemExit(entering.enter(image_path(settings), settings.command or None))


@task
def telnet(settings: Settings) -> None:
    """Have telnet listen in one of three ways, or in none."""
    from pipeline.host import images, layout, systemd  # noqa: PLC0415
    from pipeline.host import telnet as serving  # noqa: PLC0415

    if not settings.mode:
        raise UsageError("which way?", hint="doit telnet mode=socket (or inetd, forking, off)")
    where = layout_of(settings)
    if settings.mode == "off":
        as_root("telnet")
        gone = serving.remove(where)
        say(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
        return
    server = serving.Server(
        mode=serving.Mode(settings.mode),
        listen=settings.listen,
        port=settings.port or serving.PORT,
        login=serving.login(),
    )
    if settings.dry:
        for file in serving.files(server, where):
            terminal.result(f"# {file.name}\n{file.text}\n")
        return
    as_root("telnet")
    systemd.require()
    image = images.load(image_path(settings))
    layout.prepare(where)
    with layout.locked(where):
        serving.install(server, where, image)
    if settings.boot:
        systemd.enable((server.unit,))
    say("telnet sends passwords as plain text: whoever sees the packets can log in")
    if server.is_exposed:
        say(f"and {server.listen} is more than this host: anybody who reaches it may try")
    terminal.lines(f"telnet {server.listen} {server.port}")


@task
def firewall(settings: Settings) -> None:
    """Print the rules that open the instances' ports, load them, or take them back."""
    from pipeline.host import firewall as opening  # noqa: PLC0415

    kind = opening.Kind(settings.firewall) if settings.firewall else opening.kind()
    is_nft = kind is opening.Kind.NFT
    if settings.apply and settings.undo:
        raise UsageError("apply=yes and undo=yes contradict each other")
    if settings.undo:
        as_root("firewall")
        gone = opening.undo_nft(layout_of(settings)) if is_nft else opening.undo_firewalld()
        say("closed" if gone else "nothing to undo")
        return
    ports = [one.port for one in selected(settings)]
    if not settings.apply:
        terminal.result(opening.ruleset(ports) if is_nft else opening.service(ports))
        return
    as_root("firewall")
    how = (
        opening.apply_nft(ports, layout_of(settings)) if is_nft else opening.apply_firewalld(ports)
    )
    say(f"{len(ports)} ports: {opening.elements(ports)}; {how}")
    for chain in opening.blocking() if is_nft else ():
        say(
            f"{chain.family} {chain.table} {chain.name} drops what it does not accept, and no rule "
            "of another table can change that; it needs one of its own:"
        )
        terminal.result(f"{opening.snippet(chain, ports)}\n")


@task
def console(settings: Settings) -> None:
    """Boot a stopped instance on this terminal, or be a root shell in a running one."""
    from pipeline.host import console as attaching  # noqa: PLC0415
    from pipeline.host import systemd  # noqa: PLC0415
    from pipeline.run import replace  # noqa: PLC0415

    if settings.name is None:
        raise UsageError("which one?", hint="doit console name=7")
    as_root("console")
    systemd.require()
    (chosen,) = selected(settings)
    layout = layout_of(settings)
    command = settings.command or None
    terminal.flush()
    if attaching.check(chosen, layout, command):
        raise SystemExit(attaching.shell(chosen, layout, command))
    words = attaching.foreground(chosen, layout)
    say("three times ^] within a second ends it, and the instance with it")
    replace(words)
