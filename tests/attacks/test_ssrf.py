"""An app with a grant for the whole network must not reach the host's own."""

import asyncio
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from urllib.parse import quote, unquote

import pytest
from capability_calls import answered, prepared

from llmasos.bundles.manifest import HttpPermission, LocalisedText, SecretPlace, SecretsPermission
from llmasos.capabilities.http import HttpCapability
from llmasos.errors import Denied, Invalid, ResourceLimit, TimedOut, Unavailable
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.settings import Settings

WHY = LocalisedText(en="To test.")
LOOPBACK = (ip_network("127.0.0.0/8"),)

REFUSED = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://①②⑦.0.0.1/",
    "http://0.0.0.0/",
    "http://localhost/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://user:password@example.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com/",
    "//example.com/",
    "http:///",
    "http://exam\nple.com/",
    "http://private.test/",
    "http://mixed.test/",
    "http://metadata.google.internal/",
]

NAMES = {
    "localhost": ["127.0.0.1"],
    "private.test": ["10.1.2.3"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "server.test": ["127.0.0.1"],
    "other.test": ["127.0.0.1"],
}


def resolve(host, port, *_args, **_kwargs):
    """A fake resolver: listed names, and literal forms as the C library reads them."""
    addresses = NAMES.get(host)
    if addresses is None:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_args):
        pass

    def do_GET(self):
        match self.path.partition("?")[0]:
            case "/redirect-private":
                self._redirect("http://10.0.0.1/")
            case "/redirect-other":
                self._redirect(f"http://other.test:{self.server.server_port}/echo")
            case "/redirect-file":
                self._redirect("file:///etc/passwd")
            case "/redirect-to":
                self._redirect(unquote(self.path.partition("?")[2]))
            case "/loop":
                self._redirect("/loop")
            case "/large":
                self._answer(b"x" * 2_000_000)
            case "/zipped":
                self._answer(b"\x1f\x8b", {"content-encoding": "gzip"})
            case "/slow":
                threading.Event().wait(2)
                self._answer(b"late")
            case "/bytes":
                self._answer(b"\xff\x00")
            case _:
                self._answer(json.dumps({"path": self.path, "headers": dict(self.headers)}).encode())

    do_POST = do_GET  # noqa: N815

    def _redirect(self, location):
        self.send_response(302)
        self.send_header("location", location)
        self.end_headers()

    def _answer(self, body, headers=()):
        self.send_response(200)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return  # the client has stopped reading


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield httpd.server_port
        httpd.shutdown()


class Held:
    """A source with one secret."""

    def value(self, invocation, name):
        return {"token": "s3cr3t-value"}.get(name)


def invocation(hosts, wall_seconds=20.0, methods=("GET",), places=()):
    grants = {"http": HttpPermission(capability="http", hosts=hosts, methods=methods, reason=WHY)}
    if places:
        grants["secrets"] = SecretsPermission(capability="secrets", secrets=places, reason=WHY)
    app = InstalledApp("acme/app", "1.0", "i", grants, frozenset(grants))
    return Invocation(Principal(), app, "act", InvocationLimits(wall_seconds=wall_seconds))


async def send(where, url, networks=LOOPBACK, **request):
    capability = HttpCapability(Held(), networks, resolve)
    request = {"method": "GET", "url": url, **request}
    return json.loads(await answered(capability, where, "request", [json.dumps(request)]))


@pytest.mark.parametrize("url", REFUSED)
async def test_a_request_into_the_hosts_network_is_refused(url):
    """SECURITY R4."""
    with pytest.raises((Denied, Invalid, Unavailable)) as refused:
        await send(invocation(("*",)), url, networks=())
    assert "10.1.2.3" not in refused.value.message, "an app does not learn what a name resolves to here"


async def test_the_denial_of_a_private_address_prints_the_setting_that_allows_it(server):
    """11-35: an author whose server is on this computer was told that it is denied, and not how to allow it."""
    with pytest.raises(Denied) as refused:
        await send(invocation(("*",)), "http://localhost/", networks=())
    setting = re.search(r"LLMASOS_HTTP_NETWORKS='(.*)'", refused.value.message)
    networks = Settings(http_networks=json.loads(setting[1])).http_networks
    url = f"http://server.test:{server}/echo"
    assert (await send(invocation((f"http://server.test:{server}",)), url, networks=networks))["status"] == 200


async def test_a_granted_server_answers_and_the_port_is_part_of_the_grant(server):
    answer = await send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/hello?a=1")
    assert answer["status"] == 200
    assert json.loads(answer["body"])["path"] == "/hello?a=1"
    with pytest.raises(Denied, match="hosts"):
        await send(invocation(("http://server.test",)), f"http://server.test:{server}/hello")


async def test_a_granted_name_that_resolves_inward_is_refused(server):
    with pytest.raises(Denied, match="public network"):
        await send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/", networks=())


async def test_a_name_that_moves_between_judging_and_connecting_changes_nothing(server):
    """SECURITY R4."""
    answers = iter([["203.0.113.9"], ["127.0.0.1"]])
    asked = []

    def moving(host, port, *_args, **_kwargs):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in next(answers, ["127.0.0.1"])]

    where = invocation((f"http://moving.test:{server}",))
    # Only the second answer is allowed: were the name asked again, the request would succeed.
    capability = HttpCapability(Held(), LOOPBACK, moving)
    request = json.dumps({"method": "GET", "url": f"http://moving.test:{server}/"})
    operation = prepared(capability, where, "request", [request])
    with pytest.raises(Denied):
        await operation.execute(operation.demand)
    assert asked == ["moving.test"]


@pytest.mark.parametrize("path", ["/redirect-private", "/redirect-other", "/redirect-file"])
async def test_a_redirect_is_held_against_the_grant(server, path):
    """SECURITY R4."""
    with pytest.raises((Denied, Invalid)):
        await send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}{path}")


@pytest.mark.parametrize(
    ("path", "error"), [("/loop", Invalid), ("/large", ResourceLimit), ("/zipped", Unavailable), ("/slow", TimedOut)]
)
async def test_an_answer_is_bounded(server, path, error):
    with pytest.raises(error):
        wall_seconds = 1.0 if path == "/slow" else 20.0
        await send(invocation((f"http://server.test:{server}",), wall_seconds), f"http://server.test:{server}{path}")


async def test_bytes_come_back_as_base64(server):
    answer = await send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/bytes")
    assert (answer["body"], answer["base64"]) == ("/wA=", True)


async def test_a_method_that_was_not_granted_is_denied(server):
    with pytest.raises(Denied, match=r'methods = \["POST"\]'):
        await send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/", method="POST")


@pytest.mark.parametrize(
    "header", ["Host", "content-length", "Proxy-Authorization", "accept-encoding", "a b", "x\r\ny"]
)
async def test_headers_that_are_the_hosts_are_refused(server, header):
    with pytest.raises(Invalid):
        await send(
            invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/", headers={header: "value"}
        )


async def test_a_header_value_cannot_start_another_header(server):
    here = f"http://server.test:{server}"
    with pytest.raises(Invalid):
        await send(invocation((here,)), f"{here}/", headers={"x": "a\r\nb: c"})


async def test_a_secret_reaches_its_server_and_the_usual_echoes_of_it_are_hidden(server):
    """SECURITY S1."""
    here, other = f"http://server.test:{server}", f"http://other.test:{server}"
    for place in (
        SecretPlace(name="token", host=here, header="authorization", prefix="Bearer "),
        SecretPlace(name="token", host=here, query="key"),
    ):
        answer = await send(invocation((here, other), places=(place,)), f"{here}/echo")
        assert "[secret]" in answer["body"]
        assert "s3cr3t" not in json.dumps(answer)
        away = await send(invocation((here, other), places=(place,)), f"{here}/redirect-other")
        assert "[secret]" not in away["body"]
        assert "s3cr3t" not in json.dumps(away)


async def test_with_declared_fields_an_app_gets_the_status_and_those_alone(server):
    """11-S8."""
    here = f"http://server.test:{server}"
    place = SecretPlace(name="token", host=here, header="authorization", fields=("/path", "/headers"))
    answer = await send(invocation((here,), places=(place,)), f"{here}/echo")
    assert (answer["status"], answer["headers"], json.loads(answer["body"])) == (200, {}, {"/path": "/echo"})


@pytest.mark.parametrize(
    "location",
    ["javascript:alert(1)", "data:text/plain,x", "http://xn--/", "http://[", "http://a:b@server.test/", "//h"],
)
async def test_a_redirect_to_anything_else_than_a_granted_server_is_one_clear_error(server, location):
    """11-S8, its kind: it was an internal error of the host."""
    here = f"http://server.test:{server}"
    with pytest.raises((Denied, Invalid, Unavailable)):
        await send(invocation((here,)), f"{here}/redirect-to?{quote(location)}")


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"])
async def test_no_header_stands_in_for_a_method_that_is_not_granted(server, header):
    """11-S8, its kind: with a grant for GET alone, a server was asked to delete."""
    here = f"http://server.test:{server}"
    with pytest.raises(Invalid, match="the host's to set"):
        await send(invocation((here,)), f"{here}/echo", headers={header: "DELETE"})


@pytest.mark.parametrize("value", ["é", "中", "a\tb", "a\x7f"])
async def test_a_header_that_cannot_be_sent_is_refused(server, value):
    """11-12, its kind: "'ascii' codec can't encode…"."""
    here = f"http://server.test:{server}"
    with pytest.raises(Invalid, match="a header cannot hold"):
        await send(invocation((here,)), f"{here}/echo", headers={"x-note": value})


async def test_blanks_around_a_header_are_left_away(server):
    """11-12, its kind: "the server could not be reached"."""
    here = f"http://server.test:{server}"
    answer = await send(invocation((here,)), f"{here}/echo", headers={"x-note": " a \t"})
    assert json.loads(answer["body"])["headers"]["x-note"] == "a"


async def test_a_secret_that_no_header_can_carry_is_named_and_not_shown(server, monkeypatch):
    """11-12, its kind."""
    monkeypatch.setattr(Held, "value", lambda *_: "sécret-value")
    here = f"http://server.test:{server}"
    place = SecretPlace(name="token", host=here, header="authorization")
    with pytest.raises(Unavailable, match="the secret token has letters that no header can carry") as refused:
        await send(invocation((here,), places=(place,)), f"{here}/echo")
    assert "é" not in refused.value.message


@pytest.mark.parametrize("header", ["range", "Range", "if-range"])
async def test_a_request_with_a_secret_asks_for_no_part_of_the_answer(server, header):
    """11-S8: byte by byte, no filter finds the secret."""
    here = f"http://server.test:{server}"
    place = SecretPlace(name="token", host=here, header="authorization")
    with pytest.raises(Invalid, match="range"):
        await send(invocation((here,), places=(place,)), f"{here}/echo", headers={header: "bytes=0-0"})


async def test_a_secret_that_is_not_set_says_how_to_set_it(server):
    here = f"http://server.test:{server}"
    place = SecretPlace(name="absent", host=here, header="authorization")
    with pytest.raises(Unavailable, match="llmasos secrets set absent"):
        await send(invocation((here,), places=(place,)), f"{here}/echo")


async def test_the_audit_keeps_method_and_server_alone():
    capability = HttpCapability(Held(), LOOPBACK, resolve)
    url = "https://api.example.com/private/path?token=1"
    operation = prepared(capability, invocation(("*",)), "request", [json.dumps({"method": "GET", "url": url})])
    assert dict(operation.detail) == {"method": "GET", "server": "https://api.example.com"}


@pytest.mark.parametrize(
    "argument", ["{", "[]", "{}", '{"method": "TRACE", "url": "http://a/"}', '{"method":"GET"}', 3]
)
def test_a_malformed_request_is_one_clear_line(argument):
    with pytest.raises(Invalid) as refused:
        prepared(HttpCapability(Held(), LOOPBACK, resolve), invocation(("*",)), "request", [argument])
    assert "\n" not in refused.value.message


async def test_cancelling_ends_the_request(server):
    task = asyncio.create_task(send(invocation((f"http://server.test:{server}",)), f"http://server.test:{server}/slow"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
