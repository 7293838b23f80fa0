"""Measures deploying beside a C program that makes the same files, and the article's loop.

    python benchmarks/deploy.py IMAGE [--count 1000] [--rounds 5] [--json FILE]
        [--on tmpfs ext4 xfs] [--loop 100]

Needs root: every measurement gets a file system of its own, freshly made (tmpfs, or on a loop
device), and they take turns, so that a busy machine slows all of them alike. Times are of the work
alone; neither the interpreter's start nor the reading of the archive is in them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.host import access, deploy, images, state
from pipeline.host.layout import Layout
from pipeline.host.state import Share
from pipeline.host.wanted import Wanted, numbered
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink
from pipeline.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).resolve().parent
ARTICLE_ENTRIES = 300

# The article's loop, but for systemctl; $1 is how many.
LOOP = """
for x in $(seq 1 "$1"); do
  mkdir "nifty${x}"
  (cd nifty; tar cf - .) | (cd "nifty${x}"; tar xpf -)
  sed "s/2200/$((x+2200))/" < nifty/etc/inittab > "nifty${x}/etc/inittab"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured with."""

    image: images.Image
    keys: Path
    replay: Path
    entries: Path
    count: int
    loop: int


@contextmanager
def fresh(kind: str, work: Path) -> Iterator[Path]:
    """A new file system of *kind*, mounted; gone afterwards."""
    mount, image = work / "mount", work / "disk"
    mount.mkdir()
    if kind == "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", "mode=755,size=75%", "tmpfs", mount])
    else:
        with image.open("wb") as disk:
            disk.truncate(32 << 30)  # sparse; its journal is as large as on a real disk
        run([f"mkfs.{kind}", "-q", image])
        run(["mount", "-o", "loop", image, mount])
    try:
        yield mount
    finally:
        run(["umount", mount])
        mount.rmdir()
        image.unlink(missing_ok=True)


def ours(bench: Bench, prefix: Path) -> float:
    """Seconds for the whole of deploy: facts, plan, keys, roots, state, known_hosts."""
    wanted = Wanted(
        targets=numbered(bench.count, port=10000), prefix=prefix, authorized_keys=bench.keys
    )
    began = time.perf_counter()
    deploy.deploy(wanted, bench.image)
    return time.perf_counter() - began


def c_program(bench: Bench, prefix: Path, owner: str) -> float:
    """Seconds that the C program says it took."""
    numbers = [str(number) for number in (1, bench.count, state.FIRST_BASE, state.RANGE)]
    return float(run([bench.replay, bench.entries, prefix, *numbers, owner]).stdout)


def article(bench: Bench, prefix: Path) -> float:
    """Seconds of the article's loop, scaled to the count."""
    _unpack(_article_root(bench.image), prefix / "nifty")
    began = time.perf_counter()
    run(["sh", "-c", LOOP, "loop", str(bench.loop)], cwd=prefix)
    return (time.perf_counter() - began) * bench.count / bench.loop


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


def listing(image: images.Image, keys: Path) -> bytes:
    """What the C program replays: every file a deployed instance has, and its state."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder)
        deploy.deploy(
            Wanted(targets=numbered(1, port=10000), prefix=prefix, authorized_keys=keys), image
        )
        layout = Layout(prefix)
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


def compiled(work: Path) -> Path:
    """The C program, by the system's compiler or the one that builds the image."""
    program = work / "replay"
    compiler: Sequence[str] = ["cc"]
    if shutil.which("cc") is None:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(work)}
    run([*compiler, "-O2", "-o", program, HERE / "replay.c"], env=environment)
    return program


def measure(bench: Bench, kind: str, rounds: int, work: Path) -> dict[str, list[float]]:
    """Seconds by name, a list of *rounds* each."""
    peers: dict[str, Callable[[Path], float]] = {
        "deploy": lambda prefix: ours(bench, prefix),
        "C, chown": lambda prefix: c_program(bench, prefix, "chown"),
        "C, setfsuid": lambda prefix: c_program(bench, prefix, "fsuid"),
        "article": lambda prefix: article(bench, prefix),
    }
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _round in range(rounds):
        for name, peer in peers.items():
            with fresh(kind, work) as prefix:
                times[name].append(peer(prefix))
    return times


def report(kind: str, times: dict[str, list[float]], count: int) -> dict[str, Any]:
    """Print and return milliseconds per instance, and what the promise is about."""
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(f"{kind}: ms per instance, {count} instances        min   median      max")
    for name, values in times.items():
        figures = [value * 1000 / count for value in (min(values), middle[name], max(values))]
        print(f"  {name:44}" + "".join(f"{figure:9.3f}" for figure in figures))
    ratios = {
        "deploy / C, chown": middle["deploy"] / middle["C, chown"],
        "deploy / C, setfsuid": middle["deploy"] / middle["C, setfsuid"],
        "article / deploy": middle["article"] / middle["deploy"],
    }
    for name, ratio in ratios.items():
        print(f"  {name:44}{ratio:18.2f}")
    return {"seconds": times, "ratios": ratios}


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", type=int, default=100, help="instances of the article's loop")
    parser.add_argument("--on", nargs="+", default=["tmpfs", "ext4", "xfs"])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="nifty-bench-") as folder:
        work = Path(folder)
        image = images.load(chosen.image)
        keys = work / "key.pub"
        private = work / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", private])
        entries = work / "entries"
        entries.write_bytes(listing(image, keys))
        bench = Bench(
            image=image,
            keys=keys,
            replay=compiled(work),
            entries=entries,
            count=chosen.count,
            loop=chosen.loop,
        )
        for kind in chosen.on:
            times = measure(bench, kind, chosen.rounds, work)
            results[kind] = report(kind, times, chosen.count)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
