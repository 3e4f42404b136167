"""Where a redirect may lead: every host is looked up once, checked, and connected to as it was looked up."""

import datetime
import ipaddress
import socket
import ssl
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from taxi_platform.sources.addresses import network_kinds
from taxi_platform.sources.http import HttpSource
from taxi_platform.trips.errors import SourceRefused, SourceUnavailable
from taxi_platform_tests.sources.test_http import DATA, MONTH, PATH, QUICK, assert_fetched
from taxi_platform_tests.support.web_server import Page, serving


@pytest.fixture
def web():
    with serving() as web:
        yield web


@pytest.fixture
def source(web):
    return HttpSource(f"{web.url}/{{dataset}}/{{dataset}}_tripdata_{{month}}.csv.gz", **QUICK)


@pytest.fixture
def names(monkeypatch):
    """Name → the addresses that a look-up gives, one after the other and the last one for ever; and what was asked."""
    names: dict[str, list] = {}
    asked = names["asked"] = []
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *rest, **options):
        if isinstance(host, bytes):
            host = host.decode()
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            asked.append(host)
            answers = names.get(host) or [socket.gaierror(socket.EAI_NONAME, "Name or service not known")]
            host = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(host, Exception):
                raise host from None
            if isinstance(host, tuple):
                return [info for address in host for info in real(address, port, *rest, **options)]
        return real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def port_of(web):
    return web.url.rpartition(":")[2]


@pytest.mark.fault(66)
def test_a_name_that_changes_its_address_after_the_check_is_still_connected_to_the_checked_one(
    web, source, names, tmp_path
):
    names["stored.example"] = ["127.0.0.1", "169.254.169.254"]
    web.pages[PATH] = Page(status=302, headers={"Location": f"http://stored.example:{port_of(web)}/stored"})
    web.pages["/stored"] = Page(DATA, etag='"e"')
    assert source.stat(MONTH).size == len(DATA)
    assert names["asked"] == ["stored.example"]
    assert web.requests[-1][2]["Host"] == f"stored.example:{port_of(web)}"
    with pytest.raises(SourceRefused, match="stored, a link_local address, which is blocked"):
        source.fetch(MONTH, tmp_path)


@pytest.mark.fault(66)
def test_the_sources_own_name_is_looked_up_once_a_request_too(web, names, tmp_path):
    names["months.example"] = ["127.0.0.1"]
    source = HttpSource(f"http://months.example:{port_of(web)}/{{month}}", **QUICK)
    web.pages["/2020-04"] = Page(status=302, headers={"Location": "/stored"})
    web.pages["/stored"] = Page(DATA)
    assert source.stat(MONTH).size == len(DATA)
    assert names["asked"] == ["months.example"]
    assert_fetched(source.fetch(MONTH, tmp_path))


@pytest.mark.fault(66)
def test_of_several_addresses_the_next_one_is_tried_and_one_blocked_one_is_enough(web, source, names):
    web.pages[PATH] = Page(status=302, headers={"Location": f"http://two.example:{port_of(web)}/stored"})
    web.pages["/stored"] = Page(DATA)
    names["two.example"] = [("127.0.0.2", "127.0.0.1")]  # nobody listens at the first one
    assert source.stat(MONTH).size == len(DATA)
    names["two.example"] = [("127.0.0.1", "10.0.0.1")]
    with pytest.raises(SourceRefused, match="a private address"):
        source.stat(MONTH)


@pytest.mark.fault(66)
def test_a_redirect_to_a_name_that_does_not_exist_is_refused_and_to_one_not_found_now_tried_again(web, source, names):
    names["later.example"] = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]
    for name, error, says in (
        ("nobody.example", SourceRefused, r"redirects to http://nobody\.example/x, whose name does not exist"),
        ("later.example", SourceUnavailable, r"later\.example/x, whose name cannot be looked up now"),
    ):
        web.pages[PATH] = Page(status=302, headers={"Location": f"http://{name}/x?sig=s-canary"})
        with pytest.raises(error, match=says) as caught:
            source.stat(MONTH)
        assert "canary" not in str(caught.value)


@pytest.mark.fault(66)
def test_a_name_that_only_a_proxy_can_look_up_is_left_to_it(web, names, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    source = HttpSource("http://far.example/{month}", **QUICK)
    web.pages["http://far.example/2020-04"] = Page(status=302, headers={"Location": "http://farther.example/x"})
    web.pages["http://farther.example/x"] = Page(DATA)
    assert source.stat(MONTH).size == len(DATA)


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        ("64:ff9b::a00:1", {"private"}),
        ("64:ff9b::a9fe:a9fe", {"link_local"}),
        ("64:ff9b::808:808", set()),
        ("64:ff9b:1::808:808", {"private"}),
        ("2002:a00:1::1", {"private"}),
        ("2002:7f00:1::", {"loopback"}),
        ("2002:808:808::1", set()),
        ("::10.0.0.1", {"private"}),
        ("::ffff:127.0.0.1", {"loopback"}),
        ("2001:0:808:808:0:0:f5ff:fffe", {"private"}),
        ("::", {"unspecified"}),
        ("fe80::1%lo", {"link_local"}),
        ("fec0::1", {"private"}),
    ],
)
def test_ipv6_addresses_that_contain_private_ones_are_of_their_kind(address, kinds):
    assert network_kinds(address) == kinds


@pytest.mark.fault(31, 66)
@pytest.mark.parametrize("host", ["[64:ff9b::a9fe:a9fe]", "[2002:a00:1::1]", "2852039166", "0xa9.0xfe.0xa9.0xfe"])
def test_a_redirect_to_another_spelling_of_a_private_address_is_refused(web, source, host):
    web.pages[PATH] = Page(status=302, headers={"Location": f"http://{host}/latest/meta-data/"})
    with pytest.raises(SourceRefused, match="which is blocked"):
        source.stat(MONTH)


@contextmanager
def over_tls(web, folder, name):
    """The same server with TLS and a certificate for `name`; yields its port and the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.sni_callback = lambda _, sni, __: web.names.append(sni)
    with serving(context) as secure:
        web.pages, web.requests = secure.pages, secure.requests
        yield port_of(secure), pem


@pytest.mark.fault(66)
def test_tls_verifies_the_name_although_the_connection_is_made_by_address(web, names, tmp_path, monkeypatch):
    web.names = []
    names["months.example"] = ["127.0.0.1"]
    for name, is_right in (("months.example", True), ("other.example", False)):
        with over_tls(web, tmp_path, name) as (port, pem):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
            source = HttpSource(f"https://months.example:{port}/{{month}}", **QUICK)
            web.pages["/2020-04"] = Page(DATA)
            if is_right:
                assert_fetched(source.fetch(MONTH, tmp_path / "out"))
            else:
                with pytest.raises(SourceUnavailable):
                    source.stat(MONTH)
                assert web.requests == []
    assert set(web.names) == {"months.example"}
