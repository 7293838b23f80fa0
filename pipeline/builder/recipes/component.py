"""What a component is made of, as frozen models: source, patches, how it is built.

`catalogue.load` reads them from their files and checks what one refers to in another.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from pipeline.builder.recipes.fields import (
    Cpe,
    FileName,
    Fingerprint,
    HttpsUrl,
    Licence,
    Model,
    Name,
    PackageName,
    RelativePath,
    Sha256,
    Size,
    Version,
    Why,
)


class Signature(Model):
    """A detached OpenPGP signature; its file and the signer's key lie beside the recipe.

    `dsa` names why a DSA key is accepted: OpenPGP libraries refuse that algorithm by policy, and
    some upstreams still sign with nothing better.
    """

    file: FileName
    sha256: Sha256
    key: FileName
    fingerprint: Fingerprint
    dsa: Why | None = None


class Source(Model):
    """One file, pinned: exactly these bytes or none."""

    file: FileName
    size: Size
    sha256: Sha256
    signature: Signature | None = None
    unsigned: Why | None = None

    @model_validator(mode="after")
    def _signed_or_explained(self) -> Self:
        if (self.signature is None) == (self.unsigned is None):
            raise ValueError("needs [source.signature], or 'unsigned' with the reason, not both")
        return self


class Https(Model):
    """A file on a web server."""

    kind: Literal["https"]
    url: HttpsUrl


class DebianSource(Model):
    """A Debian source package, whose `.orig` tarball is upstream's file."""

    kind: Literal["debian-source"]
    package: PackageName
    version: Version
    suite: Name


class DebianBinary(Model):
    """A Debian binary package; the pinned file is the `.deb` itself."""

    kind: Literal["debian-binary"]
    package: PackageName
    version: Version
    suite: Name
    architecture: Name


Location = Annotated[Https | DebianSource | DebianBinary, Field(discriminator="kind")]


class Releases(Model):
    """Where `doit outdated` reads the newest release: a directory listing and a pattern."""

    index: HttpsUrl
    pattern: str

    @model_validator(mode="after")
    def _one_group(self) -> Self:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"pattern has {groups} groups, expected one: the version")
        return self


class Patch(Model):
    """One patch of the source, applied with `patch -p1` in the order of the recipe."""

    file: RelativePath
    sha256: Sha256
    why: Why
    origin: Why
    cves: tuple[Annotated[str, StringConstraints(pattern=r"^CVE-\d{4}-\d{4,}$")], ...] = ()


class Kbuild(Model):
    """BusyBox's way: `make defconfig`, the fragment on top, `make`."""

    system: Literal["kbuild"]
    base: Literal["defconfig", "allnoconfig"] = "defconfig"
    fragment: FileName
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    links: RelativePath
    binary: RelativePath


class Autoconf(Model):
    """`./configure`, then `make`; `headers` are put into the source folder first."""

    system: Literal["autoconf"]
    headers: tuple[FileName, ...] = ()
    configure: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    binary: RelativePath


class Make(Model):
    """`make` alone, for a part of a source; `files` are put into the source folder first."""

    system: Literal["make"]
    files: tuple[FileName, ...] = ()
    make: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    binary: RelativePath


class Extract(Model):
    """A prebuilt component: nothing is compiled, *member* is taken out of the file.

    Without *member* the file itself is the binary.
    """

    system: Literal["prebuilt"]
    member: RelativePath | None = None
    architecture: Literal["x86_64", "aarch64", "riscv64"]


Build = Annotated[Kbuild | Autoconf | Make | Extract, Field(discriminator="system")]


# one complaint instead of one for each of the two
_APPLETS = Discriminator(
    lambda found: (
        "array" if isinstance(found, (list, tuple)) else "word" if found == "build" else None
    ),
    custom_error_type="applets",
    custom_error_message="Input should be 'build' or an array of names",
)


class Program(Model):
    """The multi-call binary this component puts into /cbin, and the names it answers to.

    `applets = "build"` takes the names from the build (busybox.links) or, for a prebuilt binary,
    from reading it; otherwise they are listed, each a name in /cbin.
    """

    file: FileName
    applets: Annotated[
        Annotated[Literal["build"], Tag("word")] | Annotated[tuple[FileName, ...], Tag("array")],
        _APPLETS,
    ]


class Budgets(Model):
    """Largest size allowed, in bytes."""

    text: Size
    file: Size


class LicenceFile(Model):
    """A file of the source that says what may be done with it, by its path there.

    The text goes into the image's NOTICE; other words than those that were read are refused.
    """

    file: RelativePath
    sha256: Sha256


class Include(Model):
    """A library in the source, or in a prebuilt binary, that is linked into the program.

    The compiler's own (musl among them) are named by themselves.
    """

    name: Name
    version: Version
    licence: Licence
    cpe: Cpe | None = None
    licence_file: tuple[LicenceFile, ...] = ()


class Component(Model):
    """Something fetched, and usually compiled, that puts one binary into /cbin."""

    name: Name
    version: Version
    licence: Licence
    homepage: HttpsUrl
    released: date
    cpe: Cpe | None = None
    licence_file: tuple[LicenceFile, ...] = ()
    include: tuple[Include, ...] = ()
    source: Source
    location: Annotated[tuple[Location, ...], Field(min_length=1)]
    releases: Releases | None = None
    patch: tuple[Patch, ...] = ()
    build: Build
    program: Program
    budget: Budgets
    accept_nss: Why | None = None

    @property
    def epoch(self) -> int:
        """SOURCE_DATE_EPOCH: the release day's midnight, UTC, in seconds."""
        return int(datetime.combine(self.released, time(), UTC).timestamp())

    @property
    def licence_files(self) -> tuple[LicenceFile, ...]:
        """Those of the component and of what it includes."""
        return (*self.licence_file, *(file for one in self.include for file in one.licence_file))

    @model_validator(mode="after")
    def _only_prebuilt_unsigned(self) -> Self:
        if self.source.unsigned and self.build.system != "prebuilt":
            raise ValueError("source: only a prebuilt component may be unsigned")
        if self.patch and self.build.system == "prebuilt":
            raise ValueError("patch: a prebuilt component cannot be patched")
        return self
