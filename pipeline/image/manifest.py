"""The manifest: what an image is made of and what it needs of a host.

It lies inside the image, so that a tarball alone can be deployed, and beside it as JSON. Equal
images have equal manifests; nothing of the machine or the moment is in it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from pipeline.errors import NiftyError, ProblemsError
from pipeline.image.inittab import PortPlace
from pipeline.image.rootfs import Directory, Entry, File, Rootfs, Symlink, printable
from pipeline.paths import PathError, relative

PATH = "usr/lib/nifty/image.json"
NOTICE = "usr/lib/nifty/NOTICE"
# What is written; what is read as well: 1 names neither what is linked in nor licence files.
FORMAT: Final = 2
# What an account may be called: it stands in ssh_config, where a line end would begin an option.
ACCOUNT = r"[a-z_][a-z0-9_-]{0,31}"


class ManifestError(NiftyError):
    """An image without a manifest, or with one that does not describe it."""


def _inside(path: str) -> str:
    try:
        return str(relative(path))
    except PathError as error:
        raise ValueError(error.message) from None


# A host joins these below an instance's root, so none may lead out of it.
Inside = Annotated[str, AfterValidator(_inside)]
AccountName = Annotated[str, StringConstraints(pattern=f"^{ACCOUNT}$")]


class Model(BaseModel):
    """Frozen and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PatchRecord(Model):
    """A patch that went into a component."""

    file: str
    sha256: str
    cves: tuple[str, ...] = ()


class LicenceRecord(Model):
    """A licence as upstream words it: the file's path in the source; its text is in NOTICE."""

    file: str
    sha256: str


class IncludeRecord(Model):
    """A library that is linked into a component's binary.

    *cpe* is vendor and product of its CPE 2.3 name, as `musl-libc:musl`.
    """

    name: str
    version: str
    licence: str
    cpe: str | None = None
    licence_files: tuple[LicenceRecord, ...] = ()


class ComponentRecord(Model):
    """One component: where it came from, what came out, and the facts of its binary.

    *includes* are the libraries in the binary, *tools* the compiler's wheels; *cpe* is as
    IncludeRecord's, *elf* as `elf.as_json` gives it.
    """

    name: str
    version: str
    licence: str
    homepage: str
    source_sha256: str
    patches: tuple[PatchRecord, ...]
    tools: tuple[tuple[str, str], ...]
    path: str
    sha256: str
    size: int
    applets: int
    elf: dict[str, Any]
    cpe: str | None = None
    licence_files: tuple[LicenceRecord, ...] = ()
    includes: tuple[IncludeRecord, ...] = ()


class EntryRecord(Model):
    """One entry: *mode* in octal, *sha256* and *size* for a file, *target* for a link."""

    path: str
    kind: Literal["directory", "file", "symlink"]
    mode: str
    uid: int = 0
    gid: int = 0
    size: int | None = None
    sha256: str | None = None
    target: str | None = None


class SshRecord(Model):
    """The SSH server: its port, and where in the image that port stands.

    *program* and *word* say it as `inittab.PortPlace` does; *accounts* may log in by key.
    """

    port: int
    file: Inside
    program: str
    word: int
    host_key: Inside
    accounts: tuple[LoginRecord, ...]

    @property
    def place(self) -> PortPlace:
        """Where the port stands, as inittab.with_port wants it."""
        return PortPlace(program=self.program, word=self.word)


class LoginRecord(Model):
    """An account that can log in over the network, and its home as a path inside the image."""

    name: AccountName
    uid: int
    gid: int
    home: Inside


class BindRecord(Model):
    """A host directory that is bound read-only over a mount point of the image if it is there."""

    source: str
    target: Inside


class PackageRecord(Model):
    """A package of a distribution, some files of which are in the image.

    *licence* is in the distribution's words; None: it is not told where the files came from.
    """

    name: str
    version: str
    licence: str | None = None


class ProgramRecord(Model):
    """A dynamic program of the image that takes its libraries from the host.

    *path* is where it lies, *needs* what it asks for, as `libraries.requirements.as_json` gives it.
    """

    path: Inside
    needs: dict[str, Any]


class CopiedRecord(Model):
    """A program or library that was taken from elsewhere; *elf* is as `elf.as_json` gives it."""

    path: Inside
    package: str | None = None
    elf: dict[str, Any] | None = None


class DropinRecord(Model):
    """A program taken as it is, called *target* in the image.

    With *libraries* `bind` a host must satisfy *programs* and have *data*, paths that are bound
    like the libraries; with `copy` all is in the image, and *files* are those that can be run.
    """

    target: Inside
    libraries: Literal["bind", "copy"]
    programs: tuple[ProgramRecord, ...] = ()
    data: tuple[str, ...] = ()
    files: tuple[CopiedRecord, ...] = ()
    packages: tuple[PackageRecord, ...] = ()


class NeedsRecord(Model):
    """What the image asks of a host."""

    architecture: str
    user_range: int = 65536
    mount_points: tuple[Inside, ...]
    binds: tuple[BindRecord, ...]


class Manifest(Model):
    """All of it. *shared* may be one read-only directory for all instances of a host;

    *instance* are files of which deploy makes each instance its own.
    """

    format: Literal[1, 2]
    name: str
    title: str
    version: str
    epoch: int
    components: tuple[ComponentRecord, ...]
    ssh: SshRecord
    shared: tuple[Inside, ...]
    instance: tuple[Inside, ...]
    needs: NeedsRecord
    entries: tuple[EntryRecord, ...]
    dropins: tuple[DropinRecord, ...] = ()

    def text(self, indent: int | None = None) -> str:
        """Deterministic JSON: sorted keys, what is not there left out, a final newline."""
        table = self.model_dump(mode="json", exclude_none=True)
        if not self.dropins:
            del table["dropins"]  # most images have none
        separators = (",", ":") if indent is None else None
        return json.dumps(table, sort_keys=True, indent=indent, separators=separators) + "\n"


SshRecord.model_rebuild()


def record(entry: Entry) -> EntryRecord:
    """What the manifest says of *entry*."""
    common = {"path": entry.path, "mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
    match entry:
        case Directory():
            return EntryRecord.model_validate({"kind": "directory", **common})
        case Symlink():
            return EntryRecord.model_validate({"kind": "symlink", "target": entry.target, **common})
        case File():
            facts = {"size": len(entry.content), "sha256": entry.sha256}
            return EntryRecord.model_validate({"kind": "file", **facts, **common})


def add(manifest: Manifest, rootfs: Rootfs) -> Rootfs:
    """*rootfs* with *manifest* inside, at PATH."""
    return Rootfs.of([*rootfs, File(path=PATH, content=manifest.text().encode())])


def read(rootfs: Rootfs, *, name: str) -> Manifest:
    """The manifest inside *rootfs*, checked against every entry. *name* is for errors.

    Raises ManifestError if there is none or it is damaged, MismatchError with every entry that is
    not as it says.
    """
    entry = rootfs.find(PATH)
    if not isinstance(entry, File):
        raise ManifestError(
            f"{name}: no manifest at /{PATH}", hint="only images that nifty built have one"
        )
    try:
        manifest = Manifest.model_validate_json(entry.content)
    except ValidationError as error:
        raise _unreadable(name, error) from None
    said = {item.path: item for item in manifest.entries}
    found = {item.path: record(item) for item in rootfs if item.path != PATH}
    wrong = sorted(path for path in said | found if said.get(path) != found.get(path))
    if len(said) != len(manifest.entries):
        wrong.append("an entry is listed twice")
    # it cannot list itself: `add` says how it lies in an image
    if entry != File(path=PATH, content=entry.content):
        wrong.append(PATH)
    if wrong:
        raise MismatchError(f"{name}: not as its manifest says:", map(printable, wrong[:20]))
    return manifest


def _unreadable(name: str, error: ValidationError) -> ManifestError:
    found = error.errors(include_url=False)
    # a later format has keys that are unknown here: its number says more than they
    for item in found:
        if item["loc"] == ("format",) and isinstance(item["input"], int):
            told = f"manifest of format {item['input']}, this program reads 1 and 2"
            return ManifestError(f"{name}: {told}", hint="a newer nifty made it: use that")
    where = ".".join(map(str, found[0]["loc"])) or "JSON"
    return ManifestError(f"{name}: /{PATH}: {where}: {found[0]['msg']}")


class MismatchError(ProblemsError):
    """Entries that differ from what the manifest says of them."""
