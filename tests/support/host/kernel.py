"""A Linux of Debian's for virtual machines, and what it needs before it has a root file system."""

from __future__ import annotations

import lzma
import platform
import re
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile

from pipeline.errors import NiftyError
from pipeline.image.rootfs import File
from pipeline.paths import PROJECT
from pipeline.run import run
from tests.support.host.altered import built

if TYPE_CHECKING:
    from collections.abc import Iterator

META = "linux-image-cloud-amd64"
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "ext4",
    "quota_v2",
    "xfs",
)
KEPT = PROJECT / "artifacts" / "cache" / "testhost" / "kernel"

INIT = b"""#!/busybox sh
/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /busybox insmod $module; done
/busybox mount -t ext4 /dev/vda /root
/busybox mount --move /dev /root/dev
exec /busybox switch_root /root /lib/systemd/systemd
"""


class KernelError(NiftyError):
    """No kernel for virtual machines."""


def package() -> Path:
    """The package of Debian's kernel, from the cache or by this host's own apt, which checks it."""
    if found := sorted(KEPT.glob("*.deb")):
        return found[-1]
    told = run(["apt-cache", "depends", "--important", META]).stdout
    name = re.search(r"Depends: (linux-image-\S+)", told)
    if name is None:
        raise KernelError(f"apt knows no {META}", hint="apt-get update")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as work:
        run(["apt-get", "-o", "APT::Sandbox::User=root", "download", name[1]], cwd=Path(work))
        (made,) = Path(work).iterdir()
        return made.replace(KEPT / made.name)


def unpack(into: Path) -> tuple[Path, Path]:
    """The kernel and its initramfs (Linux' initramfs-buffer-format), made below *into*."""
    run(["dpkg-deb", "--extract", package(), into], timeout=120)
    (kernel,) = into.glob("boot/vmlinuz-*")
    tree = [("dev", 0o40755, b""), ("root", 0o40755, b""), ("modules", 0o40755, b"")]
    busybox = built().find("cbin/busybox")
    assert isinstance(busybox, File)
    tree += [("busybox", 0o100755, busybox.content), ("init", 0o100755, INIT)]
    for number, module in enumerate(_ordered(into)):
        tree.append((f"modules/{number:02}.ko", 0o100644, module))
    tree.append(("TRAILER!!!", 0, b""))
    initramfs = into / "initramfs"
    initramfs.write_bytes(b"".join(_member(*one) for one in tree))
    return kernel, initramfs


def _ordered(unpacked: Path) -> Iterator[bytes]:
    """MODULES that are not built in, each behind those that it depends on."""
    found = {_name(path.name): path for path in unpacked.rglob("*.ko*")}
    (listed,) = unpacked.rglob("modules.builtin")
    fixed = {_name(Path(line).name) for line in listed.read_text(encoding="ascii").split()}
    seen = set(fixed)

    def behind(name: str) -> Iterator[bytes]:
        if name in seen:
            return
        seen.add(name)
        content = found[name].read_bytes()
        if found[name].suffix == ".xz":
            content = lzma.decompress(content)
        about = ELFFile(BytesIO(content)).get_section_by_name(".modinfo")
        rows = about.data().split(b"\0") if about else ()
        (needed,) = (row[8:] for row in rows if row.startswith(b"depends="))
        for other in filter(None, needed.decode().split(",")):
            yield from behind(_name(other))
        yield content

    for name in MODULES:
        yield from behind(name)


def _name(file: str) -> str:
    return file.partition(".")[0].replace("-", "_")


def _member(path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def is_for_this_machine() -> bool:
    """Whether META runs what runs here."""
    return platform.machine() == "x86_64"
