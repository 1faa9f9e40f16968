"""Advisories about how images get in: whom the service asks for bytes, what it keeps, and what callers learn."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from glimpse.errors import BadRequest
from glimpse.images.signatures import claim_of
from tests.images.test_signatures import DATA, ID, SIGNERS, verifier_for
from tests.journeys.client import Api, add, replace, web_download
from tests.journeys.conftest import IMPORTS, ON_LOOPBACK, run
from tests.journeys.content import MIB, noise
from tests.journeys.service import MULTI_STORE, Service
from tests.journeys.site import Site
from tests.journeys.test_import import held
from tests.journeys.test_import_failures import check_nothing_left
from tests.journeys.wire import Wire

Who = Callable[[str], Api]

# --- whom the service may be sent to (SSRF) --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Api]:
    """A service whose operator lists no host, and lets every port be asked."""
    changes: dict[str, dict[str, object]] = {
        "DEFAULT": {"enabled_backends": "fs:file,fast:file,web:http", "show_multiple_locations": True},
        "import_filtering_opts": {"allowed_ports": "[]"},
    }
    for service in run(Service(tmp_path_factory.mktemp("careless"), MULTI_STORE, changes), tables):
        with closing(Api(service.url)) as caller:
            yield caller


HERE = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0.0.0.0",
    "0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost.localdomain",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "someone@127.0.0.1",
    "example.org@127.0.0.1",
    "example.org%40127.0.0.1",
    "example.org\\@127.0.0.1",
    "example.org#@127.0.0.1",
    socket.gethostname(),
]
NEAR = ["169.254.169.254", "[fe80::1]", "[fe80::a9fe:a9fe]", "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe"]


@pytest.mark.parametrize("host", HERE)
def test_ossa_2026_004_cve_2026_34881_this_machine(careless: Api, site: Site, host: str) -> None:
    """OSSA-2026-004: nobody sends the service to itself, however they spell that."""
    port = site.url.rpartition(":")[2]
    url = f"http://{host}:{port}/x"
    image = careless.ready()
    assert careless.raw_import(image["id"], web_download(url)).status_code == 400
    assert careless.raw_patch(image["id"], [add("locations/-", {"url": url, "metadata": {}})]).status_code == 400
    answer = careless.request("POST", f"/v2/images/{image['id']}/locations", json={"url": url})
    if answer.status_code == 202:
        assert careless.settled(image["id"])[1]["status"] == "failure"
    assert site.asked == []
    assert careless.show(image["id"])["status"] == "queued"


@pytest.mark.parametrize("host", NEAR)
def test_ossa_2026_004_cve_2026_34881_what_is_next_to_it(careless: Api, host: str) -> None:
    """OSSA-2026-004: nor to the addresses that tell a machine of a cloud its secrets."""
    image = careless.ready()
    assert careless.raw_import(image["id"], web_download(f"http://{host}/latest/meta-data/")).status_code == 400
    assert careless.tasks(image["id"]) == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "FILE:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/",
     "dict://127.0.0.1:11211/stats", "http+unix://%2Frun%2Fdocker.sock/", "//127.0.0.1/", "data:,x", "jar:http://x!/",
     "url:file:///etc/passwd", "netdoc:///etc/passwd", "ldap://127.0.0.1/"],
)  # fmt: skip
def test_ossa_2026_004_cve_2026_34881_schemes(importer: Api, url: str) -> None:
    """OSSA-2026-004: only what is on the web."""
    image = importer.ready()
    assert importer.raw_import(image["id"], web_download(url)).status_code == 400
    assert importer.tasks(image["id"]) == []


@pytest.fixture
def inner() -> Iterator[Site]:
    """A server of the cloud's own, on an address that callers may not name."""
    made = Site()
    yield made
    made.stop()


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_ossa_2026_004_cve_2026_34881_redirects(importer: Api, site: Site, inner: Site, hops: int) -> None:
    """OSSA-2026-004: each place that a server sends the service on to is looked at like the first."""
    secret = inner.add(b"secret")
    port = inner.url.rpartition(":")[2]
    for target in (
        secret.replace("127.0.0.1", "localhost"),
        secret.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        f"//localhost:{port}/x",
        secret.replace("http://127.0.0.1", "HTTP://0x7f000001"),
        secret.replace("127.0.0.1", "127.0.0.1.@localhost"),
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
    ):
        url = target
        for _ in range(hops):
            url = site.moved(url)
        image = importer.ready()
        shown, task = importer.imported(image["id"], web_download(url))
        assert (shown["status"], task["status"]) == ("queued", "failure")
    assert inner.asked == []


def test_ossa_2026_004_cve_2026_34881_ports(own: Callable[..., Service], site: Site) -> None:
    """OSSA-2026-004: as it comes, only the ports of the web are asked; the lists are the operator's."""
    lists = {"allowed_hosts": "[127.0.0.1]"}
    with closing(Api(own({"import_filtering_opts": lists}).url)) as api:
        assert api.raw_import(api.ready()["id"], web_download(site.add(b"x"))).status_code == 400
    lists |= {"allowed_ports": "[]", "disallowed_ports": f"[{site.url.rpartition(':')[2]}]"}
    with closing(Api(own({"import_filtering_opts": lists}).url)) as api:
        assert api.raw_import(api.ready()["id"], web_download(site.add(b"x"))).status_code == 400
    assert site.asked == []


def test_ossa_2026_004_cve_2026_34881_no_header_is_smuggled(importer: Api, site: Site) -> None:
    """OSSA-2026-004: a URL with line ends in it stays one line."""
    image = importer.ready()
    url = f"{site.url}/x HTTP/1.1\r\nHost: metadata\r\nX-Evil: 1\r\n\r\nGET /y"
    if importer.raw_import(image["id"], web_download(url)).status_code == 202:
        assert importer.settled(image["id"])[1]["status"] == "failure"
    assert "GET /y" not in site.asked
    assert len(site.asked) <= 1


def test_ossn_0105_tasks_are_imports_too(placer: Who) -> None:
    """OSSN-0105: the older way to import goes through the same filter, and is for administrators only."""
    for url in ("http://localhost/x", "http://2130706433/x", "file:///etc/passwd", "http://169.254.169.254/"):
        body = {"type": "import", "input": {"import_from": url, "import_from_format": "raw", "image_properties": {}}}
        assert placer("admin").request("POST", "/v2/tasks", json=body).status_code == 400
        assert placer("alice").request("POST", "/v2/tasks", json=body).status_code == 403
    assert placer("alice").get("/v2/tasks").status_code == 403


def test_ossn_0078_cve_2017_7200_ports_cannot_be_scanned(importer: Api, site: Site) -> None:
    """OSSN-0078: refused, no HTTP, an error or a page that is not there: the caller is told the same."""
    with socket.socket() as closed, socket.socket() as other:
        closed.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        other.listen()

        def greet() -> None:
            connection, _ = other.accept()
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
            connection.close()

        threading.Thread(target=greet, daemon=True).start()
        urls = [f"http://127.0.0.1:{one.getsockname()[1]}/x" for one in (closed, other)]
        broken = site.add(b"x")
        site.codes[broken.removeprefix(site.url)] = 500
        told = set()
        for url in (*urls, f"{site.url}/none", broken):
            shown, task = importer.imported(importer.ready()["id"], web_download(url))
            told.add((shown["status"], task["status"], task["message"], str(task["result"])))
    assert len(told) == 1
    assert "127.0.0.1" not in str(told)


# --- whom the service believes ---------------------------------------------------------------------------------------


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[str]:
    """The URL of a page behind TLS, with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    file = tmp_path / "impostor.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"evil")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Nothing either: handshakes that fail are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/x"
    server.shutdown()
    server.server_close()


def test_ossa_2013_018_cve_2013_4111_servers_prove_who_they_are(importer: Api, site: Site, impostor: str) -> None:
    """OSSA-2013-018: bytes over TLS come from whom the URL names, or not at all."""
    for url in (impostor, site.moved(impostor)):
        image = importer.ready()
        shown, task = importer.imported(image["id"], web_download(url))
        assert (shown["status"], task["status"]) == ("queued", "failure")
    assert importer.raw_patch(image["id"], [add("locations/-", {"url": impostor, "metadata": {}})]).status_code == 400


# --- what it keeps ---------------------------------------------------------------------------------------------------

CAP = 1 << 20


@pytest.fixture
def capped(own: Callable[..., Service]) -> Service:
    return own({**ON_LOOPBACK, "DEFAULT": {"image_size_cap": CAP}})


def pieces(size: int) -> Iterator[bytes]:
    for start in range(0, size, 65536):
        yield bytes(min(65536, size - start))


def test_ossa_2014_028_cve_2014_5356_no_way_around_the_cap(capped: Service, site: Site) -> None:
    """OSSA-2014-028: chunked, with a size that is a lie, staged or from the web: no image is larger than the cap."""
    with closing(Api(capped.url)) as api:
        image = api.ready()
        for send in (api.raw_upload, api.raw_stage):
            for body in (bytes(CAP + 1), pieces(CAP + 1), pieces(8 * CAP)):
                assert send(image["id"], body).status_code == 413
            for lie in ("1", str(CAP)):
                answer = send(image["id"], pieces(CAP + 1), {"x-openstack-image-size": lie})
                assert answer.status_code in (400, 413)
            assert api.wait_for_status(image["id"], "queued")["size"] is None
            assert capped.stored(image["id"]) == []
        for announced in (2 * CAP, 10, None):
            url = site.add(bytes(2 * CAP))
            site.announced[url.removeprefix(site.url)] = announced
            shown, task = api.imported(image["id"], web_download(url), all_stores=True)
            if shown["status"] == "active":  # the server's word has ended the image
                assert shown["size"] == announced == 10
                image = api.ready()
                continue
            assert (shown["status"], task["status"], capped.stored(image["id"])) == ("queued", "failure", [])


def test_ossa_2014_028_cve_2014_5356_a_lying_length(capped: Service) -> None:
    """OSSA-2014-028: what is sent behind the announced end belongs to nobody's image."""
    with closing(Api(capped.url)) as api, Wire(capped.url) as wire:
        image = api.ready()
        length = {"Content-Type": "application/octet-stream", "Content-Length": "5"}
        wire.head("PUT", f"/v2/images/{image['id']}/stage", length)
        wire.send(b"12345" + bytes(100_000))
        assert wire.answer().status in (204, 400)
        time.sleep(0.5)
        assert api.show(image["id"])["size"] in (5, None)
        assert sum(path.stat().st_size for path in capped.stored(image["id"])) <= 5


def test_ossa_2015_003_cve_2014_9623_an_import_that_was_deleted_stops(
    importer: Api, importing: Service, site: Site
) -> None:
    """OSSA-2015-003: nothing is read and kept any longer for an image that counts for nobody."""
    go, sent = threading.Event(), threading.Event()

    def endless() -> None:
        sent.set()
        go.wait(20)

    site.midway = (MIB, endless)
    image = importer.ready()
    importer.order(image["id"], web_download(site.add(noise(3 * MIB))), all_stores=True)
    assert sent.wait(10)
    importer.delete(image["id"])
    check_nothing_left(importing, image["id"], 15)
    go.set()
    time.sleep(0.5)
    assert importing.stored(image["id"]) == []


def test_ossa_2015_004_cve_2015_1881_a_failed_import_keeps_nothing(
    importer: Api, importing: Service, site: Site
) -> None:
    """OSSA-2015-004: whoever repeats an import that fails fills no disk."""
    image, url = importer.ready(disk_format="qcow2"), site.add(noise(MIB))
    for _ in range(3):
        assert importer.imported(image["id"], web_download(url), all_stores=True)[1]["status"] == "failure"
        assert importing.stored(image["id"]) == []
    staged = importer.staged(noise(MIB), disk_format="qcow2")
    assert importer.imported(staged["id"], "glance-direct", all_stores=True)[1]["status"] == "failure"
    assert importing.stored(staged["id"]) == []


def test_staging_follows_no_links(own: Callable[..., Service], tmp_path: Path) -> None:
    """Known since the beginning, without a number: a link in staging is no way to another file."""
    service = own(IMPORTS)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with closing(Api(service.url)) as api:
        image = api.ready()
        (service.home / "staging").mkdir(exist_ok=True)
        os.symlink(victim, service.home / "staging" / image["id"])
        api.raw_stage(image["id"], b"overwritten")
        assert victim.read_bytes() == b"precious"
        api.delete(image["id"])
        assert victim.read_bytes() == b"precious"


# --- what callers can write, and learn -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["status", "checksum", "size", "os_hash_value", "os_hash_algo", "created_at"])
def test_ossa_2015_019_cve_2015_5251_what_an_import_makes_is_not_the_callers(importer: Api, name: str) -> None:
    """OSSA-2015-019: neither before, nor while an image is on its way in."""
    image = importer.staged()
    value: object = 1 if name == "size" else "active" if name == "status" else "00"
    for operation in (add(name, value), replace(name, value)):
        assert importer.raw_patch(image["id"], [operation]).status_code == 403
    assert importer.raw_create(**{name: value}).status_code == 403
    headers = {f"X-Image-Meta-{name.replace('_', '-')}": str(value)}
    assert importer.http.patch(f"/v2/images/{image['id']}", json=[], headers=headers).is_error
    assert importer.show(image["id"]) == image


def test_ossa_2015_019_cve_2015_5251_the_services_own_notes(importer: Api, site: Site) -> None:
    """OSSA-2015-019: nobody releases a lock, or says where staged bytes are, by a property."""
    go = held(site)
    image = importer.ready()
    importer.order(image["id"], web_download(site.add(b"content")))
    for name in ("os_glance_import_task", "os_glance_stage_host", "os_glance_task_lease", "os_glance_upload_lease"):
        for operation in (add(name, "x"), replace(name, "x"), {"op": "remove", "path": f"/{name}"}):
            assert importer.raw_patch(image["id"], [operation]).status_code in (403, 409)
        assert importer.raw_create(**{name: "x"}).status_code == 403
    go.set()
    assert importer.settled(image["id"])[0]["status"] == "active"


def test_ossa_2014_004_cve_2014_1948_no_credentials_in_the_log(own: Callable[..., Service], site: Site) -> None:
    """OSSA-2014-004, bug 2095304: a password in a URL is in no log, also in one with all details."""
    service = own({**IMPORTS, "DEFAULT": {**IMPORTS["DEFAULT"], "debug": True}})
    with closing(Api(service.url)) as api:
        for page in (site.add(b"content"), f"{site.url}/none", site.moved(site.add(b"content"))):
            url = page.replace("http://", "http://me:s3cret@")
            image = api.ready()
            _, task = api.imported(image["id"], web_download(url))
            assert "s3cret" not in str(task["message"])
        refused = api.raw_import(api.ready()["id"], web_download("ftp://me:s3cret@127.0.0.1/"))
        assert (refused.status_code, "s3cret" in refused.text) == (400, False)
    assert "s3cret" not in service.log_since(0)


def test_ossa_2013_002_cve_2013_0212_no_paths_in_messages(own: Callable[..., Service]) -> None:
    """OSSA-2013-002: what a store says when it fails is for the operator."""
    service = own(IMPORTS)
    with closing(Api(service.url)) as api:
        image = api.staged(b"content")
        (service.home / "fast").rename(service.home / "away")
        (service.home / "fast").write_text("not a directory")
        _, task = api.imported(image["id"], "glance-direct", stores=["fast"])
        assert task["status"] == "failure"
        assert str(service.home) not in json.dumps([task, api.show(image["id"])])


def test_list_cached_nodes_2026_nodes_are_not_for_callers(own: Callable[..., Service]) -> None:
    """2026, without a number: the address of the node that has staged bytes is in no answer."""
    service = own({"DEFAULT": {"worker_self_reference_url": "http://node-7.inside.example.org"}})
    with closing(Api(service.url)) as api:
        image = api.staged()
        answers = [api.raw_show(image["id"]), api.raw_list(), api.get(f"/v2/images/{image['id']}/tasks")]
        assert not [answer for answer in answers if "node-7" in answer.text + str(answer.headers)]


@pytest.mark.parametrize("name", SIGNERS)
def test_ossn_0061_cve_2015_8234_a_signature_is_over_every_byte(name: str) -> None:
    """OSSN-0061: no two images have one signature, as they could while that was over an MD5 of them."""
    for position in (0, len(DATA) // 2, len(DATA) - 1):
        data = bytearray(DATA)
        data[position] ^= 1
        verifier = verifier_for(SIGNERS[name])
        verifier.update(bytes(data))
        with pytest.raises(BadRequest, match="failed"):
            verifier.verify()
    with pytest.raises(BadRequest):
        claim_of({**SIGNERS[name].properties(DATA, ID), "img_signature_hash_method": "MD5"})
