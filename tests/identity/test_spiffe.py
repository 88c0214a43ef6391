"""Guards who someone can be: the roles of keyark in one trust domain, nothing that merely looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import InvalidInputError
from keyark.identity.spiffe import SpiffeId, check_trust_domain

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
DOMAINS = st.lists(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    ("path", "role", "name", "dns_name"),
    [
        ("rm", "rm", "", "rm.example.org"),
        ("cm", "cm", "", "cm.example.org"),
        ("drm", "drm", "", "drm.example.org"),
        ("drm/transport", "drm/transport", "", ""),
        ("client/alice", "client", "alice", ""),
        ("officer/o-1", "officer", "o-1", ""),
        ("agent/a.b_c", "agent", "a.b_c", ""),
        ("auditor/9", "auditor", "9", ""),
    ],
)
def test_roles(path, role, name, dns_name):
    parsed = SpiffeId.parse(f"spiffe://example.org/{path}")
    assert parsed == SpiffeId("example.org", path)
    assert (parsed.role, parsed.name, parsed.dns_name) == (role, name, dns_name)


def test_the_transport_key_is_not_the_drm():
    """An allow-list row for the DRM must not let the transport key in."""
    assert SpiffeId.parse("spiffe://example.org/drm/transport").role != "drm"


@given(DOMAINS, st.sampled_from(["client", "officer", "agent", "auditor"]), NAMES)
def test_text_and_value_are_one(labels, role, name):
    value = SpiffeId(".".join(labels), f"{role}/{name}")
    assert SpiffeId.parse(str(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe://example.org",
        "spiffe://example.org/",
        "SPIFFE://example.org/rm",
        "https://example.org/rm",
        "spiffe:///rm",
        "spiffe://Example.org/rm",
        "spiffe://example.org./rm",
        "spiffe://-example.org/rm",
        "spiffe://example_org/rm",
        "spiffe://user@example.org/rm",
        "spiffe://example.org:443/rm",
        "spiffe://exämple.org/rm",
        "spiffe://" + "a." * 130 + "org/rm",
        "spiffe://" + "a" * 64 + ".org/rm",
        "spiffe://example.org/RM",
        "spiffe://example.org/rm/",
        "spiffe://example.org//rm",
        "spiffe://example.org/rm/x",
        "spiffe://example.org/rm?x",
        "spiffe://example.org/rm#x",
        "spiffe://example.org/ca",
        "spiffe://example.org/drm/other",
        "spiffe://example.org/client",
        "spiffe://example.org/client/",
        "spiffe://example.org/client/Alice",
        "spiffe://example.org/client/.alice",
        "spiffe://example.org/client/al%69ce",
        "spiffe://example.org/client/alice/x",
        "spiffe://example.org/client/alice\n",
        "spiffe://example.org/client/" + "a" * 65,
        "spiffe://example.org/root/alice",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidInputError) as caught:
        SpiffeId.parse(text, field="caller")
    assert caught.value.field == "caller"


@pytest.mark.parametrize(
    ("trust_domain", "path"), [("Example.org", "rm"), ("example.org", "root"), ("", "rm")]
)
def test_values_are_checked_too(trust_domain, path):
    with pytest.raises(InvalidInputError):
        SpiffeId(trust_domain, path)


def test_the_dns_name_of_every_service_fits_the_dns():
    domain = ".".join("a" * size for size in (62, 62, 61, 61))
    check_trust_domain(domain)
    assert len(SpiffeId(domain, "drm").dns_name) == 253
    with pytest.raises(InvalidInputError):
        check_trust_domain(domain + "a")


@given(st.text(max_size=80))
def test_random_text_raises_typed_errors_or_is_its_own_form(text):
    for candidate in (
        text,
        f"spiffe://{text}",
        f"spiffe://example.org/{text}",
        f"spiffe://example.org/client/{text}",
    ):
        try:
            assert str(SpiffeId.parse(candidate)) == candidate
        except InvalidInputError:
            continue
