"""Who makes instances: `doit deploy`, a C program, and what one would type in a shell.

Each takes the folder of a fresh file system and returns the seconds of the work alone; what is
prepared on it before is not counted, neither is an interpreter's start or reading the archive.
"""

from __future__ import annotations

import io
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.compiler import compiled
from pipeline.commands import deploy
from pipeline.host.roots import access, differences, images, upgrade
from pipeline.host.state import records
from pipeline.host.state.layout import Layout, locked
from pipeline.host.state.records import Share
from pipeline.host.units import sync
from pipeline.host.wanted import Wanted, numbered
from pipeline.image import archive, manifest
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink
from pipeline.run import run
from pipeline.settings import Settings

NIFTY = "doit deploy"
UPGRADE = "doit upgrade"
C_CHOWN = "C replay, chown"
C_FSUID = "C replay, setfsuid"
COPY = "cp -a --reflink=auto"
EXTRACT = "tar -x"
ARTICLE = "the article's loop"
SNAPSHOT = "btrfs subvolume snapshot"

PEERS = (NIFTY, UPGRADE, C_CHOWN, C_FSUID, COPY, EXTRACT, SNAPSHOT, ARTICLE)

# Not run at higher counts: at 10,000 they would take most of a minute, each time.
MOST = {COPY: 1000, EXTRACT: 1000, SNAPSHOT: 1000}
# Run for so many and scaled to the count.
SCALED = {ARTICLE: 100}

ARTICLE_ENTRIES = 300

# $1 how many, $2 a tar of an instance
LOOPS = {
    COPY: 'for x in $(seq 1 "$1"); do cp -a --reflink=auto root "nifty$x"; done',
    EXTRACT: 'for x in $(seq 1 "$1"); do mkdir "nifty$x"; tar -xpf "$2" -C "nifty$x"; done',
    SNAPSHOT: 'for x in $(seq 1 "$1"); do btrfs -q subvolume snapshot root "nifty$x"; done',
    # but for systemctl
    ARTICLE: """
for x in $(seq 1 "$1"); do
  mkdir "nifty${x}"
  (cd nifty; tar cf - .) | (cd "nifty${x}"; tar xpf -)
  sed "s/2200/$((x+2200))/" < nifty/etc/inittab > "nifty${x}/etc/inittab"
done
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the peers work with: an image, a key to log in with, and both as C and tar want them.

    *newer*: the same image with one file changed, to upgrade to.
    """

    image: images.Image
    newer: images.Image
    keys: Path
    replay: Path
    entries: Path
    tar: Path


def material(path: Path, work: Path) -> Material:
    """Everything made of the image at *path*, below *work*."""
    image = images.load(path)
    keys = work / "key.pub"
    public = Ed25519PrivateKey.generate().public_key()
    keys.write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" bench\n")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        layout = Layout(Path(folder))
        _deploy(image, keys, layout.prefix, 1)
        entries = work / "entries"
        entries.write_bytes(_listing(image, keys, layout))
        tar = work / "instance.tar"
        run(["tar", "-cf", tar, "-C", layout.root("nifty1"), "."])
    return Material(
        image=image,
        newer=_newer(image),
        keys=keys,
        replay=compiled("replay", work),
        entries=entries,
        tar=tar,
    )


def peers_on(kind: str, count: int) -> tuple[str, ...]:
    """Those that can be measured on a file system of *kind* with *count* instances."""
    return tuple(
        peer
        for peer in PEERS
        if count <= MOST.get(peer, count) and (kind == "btrfs" or peer != SNAPSHOT)
    )


def measured_count(peer: str, count: int) -> int:
    """How many are really made when *count* are asked for."""
    return min(count, SCALED.get(peer, count))


def seconds(peer: str, made_of: Material, prefix: Path, count: int) -> float:
    """How long *peer* takes for *count* instances in the empty folder *prefix*."""
    match peer:
        case "doit deploy":
            return _deploy(made_of.image, made_of.keys, prefix, count)
        case "doit upgrade":
            return _upgrade(made_of, prefix, count)
        case "C replay, chown":
            return _c_program(made_of, prefix, count, "chown")
        case "C replay, setfsuid":
            return _c_program(made_of, prefix, count, "fsuid")
    _prepare(peer, made_of, prefix)
    really = measured_count(peer, count)
    began = time.perf_counter()
    run(["sh", "-ec", LOOPS[peer], "loop", str(really), made_of.tar], cwd=prefix)
    return (time.perf_counter() - began) * count / really


def _deploy(image: images.Image, keys: Path, prefix: Path, count: int) -> float:
    """The whole of deploy: facts, plan, keys, roots, state, known_hosts."""
    wanted = Wanted(targets=numbered(count, port=10000), prefix=prefix, authorized_keys=keys)
    told = io.StringIO()
    began = time.perf_counter()
    with redirect_stderr(told):  # warnings of ports that nobody will listen on
        deploy.deploy(wanted, image)
    return time.perf_counter() - began


def _upgrade(made_of: Material, prefix: Path, count: int) -> float:
    """What an upgrade of stopped instances does but for asking systemd, in batches as usual."""
    _deploy(made_of.image, made_of.keys, prefix, count)
    layout = Layout(prefix)
    known = records.look(layout)
    sync.write_environments(layout, known)
    suffixes = [one.suffix for one in known.instances]
    batch = Settings().batch
    began = time.perf_counter()
    differ = differences.Differences(layout)
    for at in range(0, count, batch):
        part = suffixes[at : at + batch]
        upgrade.upgrade(layout, part, made_of.newer, differ=differ)
        sync.follow(layout, part)
    with locked(layout):
        upgrade.tidy(layout, records.look(layout))
    return time.perf_counter() - began


def _newer(image: images.Image) -> images.Image:
    entries = {entry.path: entry for entry in image.rootfs if entry.path != manifest.PATH}
    entries["etc/motd"] = File(path="etc/motd", content=b"newer\n")
    content = Rootfs.of(entries.values())
    told = tuple(manifest.record(entry) for entry in content)
    described = image.manifest.model_copy(update={"entries": told})
    rootfs = manifest.add(described, content)
    return replace(
        image,
        rootfs=rootfs,
        manifest=described,
        archive=archive.write_zstd(archive.write_tar(rootfs, mtime=0)),
        digest=rootfs.digest,
    )


def _c_program(made_of: Material, prefix: Path, count: int, owner: str) -> float:
    """What the C program says it took."""
    numbers = [str(number) for number in (1, count, records.FIRST_BASE, records.RANGE)]
    return float(run([made_of.replay, made_of.entries, prefix, *numbers, owner]).stdout)


def _prepare(peer: str, made_of: Material, prefix: Path) -> None:
    """What the loop copies from."""
    if peer == ARTICLE:
        _unpack(_article_root(made_of.image), prefix / "nifty")
        return
    root = prefix / "root"
    if peer == SNAPSHOT:
        run(["btrfs", "-q", "subvolume", "create", root])
    elif peer == COPY:
        root.mkdir()
    else:
        return
    run(["tar", "-xpf", made_of.tar, "-C", root])


def _article_root(image: images.Image) -> Rootfs:
    """Its root once /cbin is shared: the same files, and a link for each applet in /bin."""
    rest = [
        entry
        for entry in images.entries_of(image, Share.CBIN, access.Access(lines=()))
        if entry.path != "bin"
    ]
    applets = [
        Symlink(path=f"bin/{entry.path.removeprefix('cbin/')}", target=f"/cbin/{entry.target}")
        for entry in image.rootfs
        if isinstance(entry, Symlink) and entry.path.startswith("cbin/")
    ]
    entries = [*rest, Directory(path="bin"), *applets]
    return Rootfs.of(entries[:ARTICLE_ENTRIES])


def _unpack(rootfs: Rootfs, root: Path) -> None:
    root.mkdir()
    for entry in rootfs:
        path = root / entry.path
        match entry:
            case Directory():
                path.mkdir()
            case Symlink():
                path.symlink_to(entry.target)
            case File():
                path.write_bytes(entry.content)


def _listing(image: images.Image, keys: Path, layout: Layout) -> bytes:
    """What the C program replays: every file the deployed nifty1 has, and its state."""
    lines = [
        _line(entry, layout.root("nifty1") / entry.path)
        for entry in images.entries_of(image, Share.CBIN, access.keys_of_file(keys))
    ]
    record = (layout.instances / "1.json").read_bytes()
    return b"".join([*lines, b"s %d\n%b\n" % (len(record), record)])


def _line(entry: Entry, path: Path) -> bytes:
    name = entry.path.encode()
    match entry:
        case Directory():
            return b"d %o %d %d %b\n" % (entry.mode, entry.uid, entry.gid, name)
        case Symlink():
            target = entry.target.encode()
            return b"l %d %d %d %b\n%b\n" % (entry.uid, entry.gid, len(target), name, target)
        case File():
            text = path.read_bytes()
            head = b"f %o %d %d %d %b\n" % (entry.mode, entry.uid, entry.gid, len(text), name)
            return head + text + b"\n"
