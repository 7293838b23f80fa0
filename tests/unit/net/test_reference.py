"""References: what is one, what it names, and where http is spoken."""

from __future__ import annotations

import pytest

from pipeline.net import reference
from pipeline.net.reference import BadReferenceError, Reference

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("text", "expected", "api"),
    [
        ("oci://h/n", Reference(host="h", name="n"), "https://h/v2/n"),
        (
            "oci://registry.example.org:5000/a/b_c-d.e:2026.11",
            Reference(host="registry.example.org:5000", name="a/b_c-d.e", tag="2026.11"),
            "https://registry.example.org:5000/v2/a/b_c-d.e",
        ),
        (
            f"oci://h/n:t@{DIGEST}",
            Reference(host="h", name="n", tag="t", digest=DIGEST),
            "https://h/v2/n",
        ),
        (
            "oci://docker.io/somebody/nifty",
            Reference(host="docker.io", name="somebody/nifty"),
            "https://registry-1.docker.io/v2/somebody/nifty",
        ),
        (
            "oci://localhost:5000/n",
            Reference(host="localhost:5000", name="n"),
            "http://localhost:5000/v2/n",
        ),
        ("oci://127.9.9.9/n", Reference(host="127.9.9.9", name="n"), "http://127.9.9.9/v2/n"),
        ("oci://[::1]:80/n", Reference(host="[::1]:80", name="n"), "http://[::1]:80/v2/n"),
        ("oci://[::1]/n", Reference(host="[::1]", name="n"), "http://[::1]/v2/n"),
        ("oci://[2001:db8::1]/n", Reference(host="[2001:db8::1]", name="n"), None),
        ("oci://localhost.example/n", Reference(host="localhost.example", name="n"), None),
        ("oci://10.0.0.1/n", Reference(host="10.0.0.1", name="n"), None),
    ],
)
def test_what_a_reference_names(text: str, expected: Reference, api: str | None) -> None:
    found = reference.parse(text)
    assert found == expected
    assert str(found) == text
    assert found.api == (api or f"https://{expected.host}/v2/n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("registry.example.org/n", "expected oci://"),
        ("docker://h/n", "expected oci://"),
        ("oci://", "no host"),
        ("oci://h", "no host"),
        ("oci:///n", "no host"),
        ("oci://user:secret@h/n", "no host"),
        ("oci://h:0/n", "no host"),
        ("oci://h:99999/n", "no host"),
        ("oci://h/", "is no name"),
        ("oci://h/Nifty", "is no name"),
        ("oci://h/a/../b", "is no name"),
        ("oci://h/a//b", "is no name"),
        (f"oci://h/{'a' * 256}", "is no name"),
        ("oci://h/n:", "is no tag"),
        ("oci://h/n:a b", "is no tag"),
        ("oci://h/n@sha256:12", "a digest is"),
        ("oci://h/n@", "a digest is"),
        ("oci://h/n?x=1", "is no name"),
        ("oci://h/n\n", "is no name"),
    ],
)
def test_what_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(BadReferenceError, match=told):
        reference.parse(text)
