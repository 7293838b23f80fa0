"""Puts an image together: components, accounts and the files of /etc, as a value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import elf
from pipeline.builder.assembly import dropins, etc, notice
from pipeline.builder.assembly.dropins import Tree
from pipeline.builder.components import toolchain
from pipeline.builder.recipes.component import Extract
from pipeline.errors import ProblemsError
from pipeline.image import inittab, manifest
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink
from pipeline.libraries import LibraryRoot
from pipeline.paths import beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.builder.components.results import Built
    from pipeline.builder.recipes.catalogue import Recipes
    from pipeline.builder.recipes.component import Component
    from pipeline.builder.recipes.image import Account, Dropin, Image

HOST_KEY = "etc/dropbear/dropbear_ed25519_host_key"
MOUNT_POINTS = ("proc", "sys", "dev", "run")

# (path, mode): whatever else an image has, these are there
_DIRECTORIES = (
    ("cbin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/dropbear", 0o700),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib/nifty", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/share", 0o755),
    (etc.ZONEINFO, 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
)
_LINKS = (
    ("bin", "cbin"),
    # nspawn makes this link where it is missing, and an upgrade would take it for the user's own
    ("lib", "usr/lib"),
    ("sbin", "cbin"),
    ("usr/bin", "../cbin"),
    ("usr/sbin", "../cbin"),
    ("var/run", "../run"),
)


class AssembleError(ProblemsError):
    """Parts that do not make an image; each problem is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """An image and its manifest, which is inside as well.

    *sources* are files of the build host that went in, *notes* what a user should know of them.
    """

    rootfs: Rootfs
    manifest: manifest.Manifest
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def assemble(
    image: Image,
    recipes: Recipes,
    built: dict[str, Built],
    *,
    architecture: str,
    tree_of: Callable[[Dropin], Tree] = lambda _dropin: Tree(root=LibraryRoot()),
) -> Assembled:
    """The image that a recipe describes.

    *built* has every component the image names, *tree_of* says where a drop-in is taken from.
    Raises AssembleError, DropinError or RootfsError with every problem at once.
    """
    components = [recipes.components[name] for name in image.components]
    content = Rootfs.of(
        _with_parents(
            [
                *(Directory(path=path, mode=mode) for path, mode in _DIRECTORIES),
                *(Symlink(path=path, target=target) for path, target in _LINKS),
                *_programs(components, built),
                *etc.entries(image),
                *_homes(image),
                *_extra(image, recipes.root / "images"),
            ]
        )
    )
    taken = dropins.take(image.dropin, content, tree_of, architecture=architecture)
    told = notice.text(image, components, built, packages=_packages(taken.records))
    own = File(path=manifest.NOTICE, content=told.encode())
    content = Rootfs.of(_with_parents([*content, *taken.entries, own]))
    table = content.find(inittab.PATH)
    text = table.content.decode(errors="replace") if isinstance(table, File) else ""
    problems = [
        *_missing_programs(image, content, text),
        *_wrong_port(image, text),
        *_host_keys(content),
    ]
    if problems:
        raise AssembleError(f"the image {image.name} would not start:", problems)
    described = _describe(
        image, components, built, content, architecture=architecture, records=taken.records
    )
    return Assembled(
        rootfs=manifest.add(described, content),
        manifest=described,
        sources=taken.sources,
        notes=taken.notes,
    )


def _packages(records: tuple[manifest.DropinRecord, ...]) -> tuple[manifest.PackageRecord, ...]:
    found = {(one.name, one.version): one for record in records for one in record.packages}
    return tuple(found[key] for key in sorted(found))


def _programs(components: list[Component], built: dict[str, Built]) -> Iterator[Entry]:
    owners: dict[str, str] = {}
    for component in components:
        item = built[component.name]
        yield File(path=f"cbin/{item.program}", content=item.binary.read_bytes(), mode=0o755)
        owners.setdefault(item.program, component.name)
        for applet in item.applets:
            # an earlier component's applet stands; a binary's own name is no link to itself
            owner = owners.setdefault(applet, component.name)
            if owner == component.name and applet != item.program:
                yield Symlink(path=f"cbin/{applet}", target=item.program)


def _homes(image: Image) -> Iterator[Entry]:
    there = {path for path, _mode in _DIRECTORIES}
    for account in image.account:
        home = account.home.strip("/")
        if home and home not in there:
            yield Directory(path=home, mode=0o755, uid=account.uid, gid=account.gid)
        if account.authorized_keys:
            owner = {"uid": account.uid, "gid": account.gid}
            text = "".join(f"{line}\n" for line in account.authorized_keys)
            yield Directory(path=f"{home}/.ssh", mode=0o700, **owner)
            yield File(
                path=f"{home}/.ssh/authorized_keys", content=text.encode(), mode=0o600, **owner
            )


def _extra(image: Image, folder: Path) -> Iterator[Entry]:
    for extra in image.file:
        if extra.content is not None:
            content = extra.content.encode()
        else:
            content = beneath(folder, extra.file or "").read_bytes()
        yield File(path=extra.path, content=content, mode=extra.mode, uid=extra.uid, gid=extra.gid)


def _with_parents(entries: list[Entry]) -> list[Entry]:
    """*entries* and the directories above them that nobody named, 0755 root:root."""
    there = {entry.path for entry in entries}
    above = {
        entry.path[:at] for entry in entries for at, char in enumerate(entry.path) if char == "/"
    }
    return [*entries, *(Directory(path=path) for path in sorted(above - there))]


def _missing_programs(image: Image, rootfs: Rootfs, table: str) -> Iterator[str]:
    """What init, the shells and the table of init need and the components do not bring."""
    wanted = {"/sbin/init": "systemd-nspawn and the kernel start it"}
    if image.console:
        wanted |= dict.fromkeys(("/bin/script", "/bin/getty", "/bin/login"), "for console = true")
    for account in image.account:
        wanted.setdefault(account.shell, f"the shell of {account.name}")
    for _action, words in inittab.processes(table):
        wanted.setdefault(words[0].removeprefix("-"), f"named in {inittab.PATH}")
    for path, why in wanted.items():
        if not isinstance(rootfs.resolve(path), File):
            yield f"{path}: no component brings it ({why})"


def _wrong_port(image: Image, table: str) -> Iterator[str]:
    """A recipe may bring an inittab of its own; deploy must find the port there all the same."""
    try:
        port = inittab.port_of(table, _port_place(image))
    except inittab.InittabError as error:
        yield error.message
        return
    if port != image.port:
        yield f"/{inittab.PATH}: the port is {port}, the recipe says {image.port}"


def _port_place(image: Image) -> inittab.PortPlace:
    return inittab.PortPlace(program=image.ssh[0], word=image.ssh.index("{port}"))


def _host_keys(rootfs: Rootfs) -> Iterator[str]:
    """A key in the image would be the same for everybody who has the image."""
    for entry in rootfs:
        if entry.path.startswith("etc/dropbear/") and entry.path.endswith("_host_key"):
            yield f"{entry.path}: a host key is made at deploy, one for each instance"


def _describe(
    image: Image,
    components: list[Component],
    built: dict[str, Built],
    rootfs: Rootfs,
    *,
    architecture: str,
    records: tuple[manifest.DropinRecord, ...],
) -> manifest.Manifest:
    place = _port_place(image)
    logins = tuple(_login(account) for account in image.account if _may_log_in(account))
    return manifest.Manifest(
        format=manifest.FORMAT,
        name=image.name,
        title=image.title,
        version=image.version,
        epoch=image.epoch,
        components=tuple(_component(component, built[component.name]) for component in components),
        ssh=manifest.SshRecord(
            port=image.port,
            file=inittab.PATH,
            program=place.program,
            word=place.word,
            host_key=HOST_KEY,
            accounts=logins,
        ),
        shared=("cbin",),
        instance=("etc/hostname", "etc/hosts", "etc/inittab", "etc/machine-id", HOST_KEY),
        needs=manifest.NeedsRecord(
            architecture=architecture,
            mount_points=MOUNT_POINTS,
            binds=(manifest.BindRecord(source=f"/{etc.ZONEINFO}", target=etc.ZONEINFO),),
        ),
        entries=tuple(manifest.record(entry) for entry in rootfs),
        dropins=records,
    )


def _may_log_in(account: Account) -> bool:
    # Dropbear's -w keeps root out; "!" locks an account even for keys
    return account.uid != 0 and etc.has_shell(account) and account.password != "!"  # noqa: S105


def _login(account: Account) -> manifest.LoginRecord:
    return manifest.LoginRecord(
        name=account.name, uid=account.uid, gid=account.gid, home=account.home.strip("/")
    )


def _component(component: Component, built: Built) -> manifest.ComponentRecord:
    content = built.binary.read_bytes()
    return manifest.ComponentRecord(
        name=component.name,
        version=component.version,
        licence=component.licence,
        homepage=component.homepage,
        source_sha256=component.source.sha256,
        patches=tuple(
            manifest.PatchRecord(file=item.file, sha256=item.sha256, cves=item.cves)
            for item in component.patch
        ),
        tools=() if isinstance(component.build, Extract) else toolchain.versions(),
        path=f"cbin/{built.program}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        applets=len(built.applets),
        elf=elf.as_json(elf.parse(content, built.program)),
        cpe=component.cpe,
        licence_files=notice.records(component.licence_file),
        includes=notice.includes(component, built),
    )
