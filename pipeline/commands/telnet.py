"""`doit telnet`: telnet listens in one of three ways, or in none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import terminal
from pipeline.commands import obtain
from pipeline.commands.places import layout_of
from pipeline.commands.ready import as_root
from pipeline.errors import UsageError
from pipeline.host import telnet as serving
from pipeline.host.roots import images
from pipeline.host.state import layout
from pipeline.host.units import systemd
from pipeline.program import to_type
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline.settings import Settings


def run(settings: Settings) -> None:
    """Have telnet listen in one of three ways, or in none."""
    if not settings.mode:
        raise UsageError("which way?", hint=to_type("telnet mode=socket (or inetd, forking, off)"))
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
    obtained = obtain.image(settings)
    image = images.load(obtained.path)
    layout.prepare(where)
    with layout.locked(where):
        obtained.remember(where)
        serving.install(server, where, image)
    if settings.boot:
        systemd.enable((server.unit,))
    say("telnet sends passwords as plain text: whoever sees the packets can log in")
    if server.is_exposed:
        say(f"and {server.listen} is more than this host: anybody who reaches it may try")
    terminal.lines(f"telnet {server.listen} {server.port}")
