"""The UI as it is served: who is let in, what is refused, and that a browser still gets everything."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from taxi_platform.trips.errors import SettingError
from taxi_platform.ui.access import load_access
from taxi_platform.ui.guard import BODY_BYTES, WRONG_TOKEN_SECONDS
from taxi_platform_tests.support.system import free_port

pytestmark = pytest.mark.slow
TOKEN = "a-token-for-the-ui-0123456789"
REPORT_TOKEN = "a-token-for-reports-0123456789"
PROXY_HOST = "taxi.example.com"
JSON = {"Content-Type": "application/json"}
RESUME = "mutation { setAutoMaterializePaused(paused: false) }"  # paused is where an instance starts
DEFINITIONS = """
import dagster as dg

@dg.asset
def hello(context: dg.AssetExecutionContext) -> None:
    context.log.info("hello from the asset")

defs = dg.Definitions([hello])
"""
INSTANCE = """
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""


class Server:
    """A webserver's process, as `taxi dev` starts it, and how to speak to it."""

    def __init__(self, folder: Path, load_from: str, settings: dict[str, str]) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.log = folder / "webserver.log"
        (folder / "dagster.yaml").write_text(INSTANCE)
        (folder / "workspace.yaml").write_text(f"load_from: {load_from}\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
        arguments = ["-m", "taxi_platform.ui.webserver", str(folder / "workspace.yaml"), "127.0.0.1"]
        self.process = subprocess.Popen(
            [sys.executable, *arguments, str(self.port)],
            env=kept | settings | {"DAGSTER_HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.ask("GET", "/server_info").ok:
                    return
            except requests.ConnectionError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the code server that it started, too
        self.process.wait()

    def ask(self, method: str, path: str, headers: dict | None = None, **more) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, self.url + path, headers=headers, timeout=300, **({"allow_redirects": False} | more)
            )

    def graphql(self, query: str, headers: dict | None = None) -> requests.Response:
        return self.ask("POST", "/graphql", JSON | (headers or {}), data=json.dumps({"query": query}))

    def paused(self) -> bool:
        return self.graphql("{ instance { autoMaterializePaused } }").json()["data"]["instance"][
            "autoMaterializePaused"
        ]

    def handshake(self, origin: str | None, **headers: str):
        """A websocket as the UI opens it, over this server's own Host unless another is given."""
        host = headers.pop("Host", self.host)
        return connect(
            f"ws://{host}/graphql",
            sock=socket.create_connection(("127.0.0.1", self.port)),
            origin=origin,
            subprotocols=["graphql-ws"],
            additional_headers=headers,
            proxy=None,
        )


@contextmanager
def serving(*servers: Server):
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.end()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    first, second = tmp_path_factory.mktemp("open"), tmp_path_factory.mktemp("closed")
    (first / "hello_definitions.py").write_text(DEFINITIONS)
    location = f"[{{python_file: {{relative_path: {first / 'hello_definitions.py'}, location_name: hello}}}}]"
    settings = {"TAXI_UI_HOSTS": f"{PROXY_HOST}, https://Second.example.com:8443/", "TAXI_REPORT_TOKEN": REPORT_TOKEN}
    closed = Server(second, "[]", {"TAXI_UI_TOKEN": TOKEN, "TAXI_UI_READ_ONLY": "1", "FORWARDED_ALLOW_IPS": "*"})
    with serving(Server(first, location, settings), closed) as both:
        yield both


@pytest.fixture(scope="module")
def ui(servers):
    """Without a login; behind a proxy as well; takes reports."""
    return servers[0]


@pytest.fixture(scope="module")
def viewers(servers):
    """With a login, read-only, without reports."""
    return servers[1]


# Host


@pytest.mark.parametrize("name", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
def test_loopback_names_are_let_in(ui, name):
    assert ui.ask("GET", "/server_info", {"Host": name.format(port=ui.port)}).status_code == 200


@pytest.mark.parametrize("name", [PROXY_HOST, "second.example.com:8443"])
def test_configured_hosts_are_let_in(ui, name):
    assert ui.ask("GET", "/server_info", {"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "rebound.example.net:{port}",
        "rebound.example.net",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.example.net:{port}",
        "second.example.com",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/server_info", "/graphql", "/_next/static/x.js"])
def test_other_hosts_are_refused_everywhere(ui, name, path):
    assert ui.ask("GET", path, {"Host": name.format(port=ui.port)}).status_code == 403


def test_the_refusal_of_a_host_says_what_to_do(ui):
    answer = ui.ask("GET", "/", {"Host": "rebound.example.net"})
    assert answer.text == (
        "Host 'rebound.example.net' is not allowed. If it is this server's name, add it to TAXI_UI_HOSTS.\n"
    )


def test_a_second_host_header_does_not_help(ui):
    with closing(http.client.HTTPConnection("127.0.0.1", ui.port, timeout=300)) as connection:
        connection.putrequest("GET", "/server_info", skip_host=True)
        connection.putheader("Host", ui.host)
        connection.putheader("Host", "rebound.example.net")
        connection.endheaders()
        assert connection.getresponse().status in {400, 403}


def test_a_rebound_name_cannot_pass_as_its_own_origin(ui):
    rebound = f"rebound.example.net:{ui.port}"
    assert ui.graphql(RESUME, {"Host": rebound, "Origin": f"http://{rebound}"}).status_code == 403
    assert ui.paused()


# Mutations


def test_a_mutation_by_get_is_refused(ui):
    assert ui.ask("GET", "/graphql", params={"query": RESUME}).status_code == 405
    assert ui.paused()


@pytest.mark.parametrize("path", ["/graphql", "/%67raphql"])
@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_graphql_takes_nothing_but_post(ui, method, path):
    assert ui.ask(method, path, {"Accept": "text/html"}, params={"query": RESUME}).status_code == 405
    assert ui.paused()


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/graphql",
        "application/jsonp",
        "",
    ],
)
def test_a_mutation_by_form_or_text_is_refused(ui, kind):
    body = json.dumps({"query": RESUME})
    answer = ui.ask("POST", "/graphql", {"Content-Type": kind}, params={"query": RESUME}, data=body)
    assert (answer.status_code, ui.paused()) == (415, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "file://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Origin": "http://evil.example/http://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_a_mutation_from_another_page_is_refused(ui, headers):
    headers = {name: value.format(port=ui.port) for name, value in headers.items()}
    assert (ui.graphql(RESUME, headers).status_code, ui.paused()) == (403, True)


def test_a_preflight_gets_no_leave(ui):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = ui.ask("OPTIONS", "/graphql", asked)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (403, False)


def test_a_mutation_from_the_uis_own_page_or_a_program_is_executed(ui):
    for headers in ({"Origin": ui.url, "Sec-Fetch-Site": "same-origin"}, {"Origin": f"https://{PROXY_HOST}"}, {}):
        for paused in (False, True):
            mutation = RESUME.replace("false", str(paused).lower())
            assert ui.graphql(mutation, headers).status_code == 200
            assert ui.paused() is paused


def test_json_with_a_charset_is_json(ui):
    assert ui.graphql("{ version }", {"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/runs", "/server_info", "/graphql/", "/logs/x/compute_logs/y.out", "/login"])
def test_elsewhere_there_is_only_reading(ui, method, path):
    assert ui.ask(method, path, JSON | {"Origin": ui.url}, data="{}").status_code == 405


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(ui):
    with closing(http.client.HTTPConnection("127.0.0.1", ui.port, timeout=300)) as connection:
        connection.putrequest("POST", "/graphql")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(BODY_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_body_of_unknown_length_is_refused(ui):
    assert ui.ask("POST", "/graphql", JSON, data=iter([b"{}"])).status_code == 411


def test_a_body_below_the_limit_is_read(ui):
    assert ui.graphql("{ version }" + " " * (BODY_BYTES - 100)).status_code == 200


# Websockets


def test_a_websocket_of_the_uis_own_page_is_answered(ui):
    with ui.handshake(ui.url) as opened:
        opened.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(opened.recv(timeout=300)) == {"type": "connection_ack"}


def test_a_websocket_through_the_proxy_is_answered(ui):
    with ui.handshake(f"https://{PROXY_HOST}", Host=PROXY_HOST) as opened:
        assert opened.subprotocol == "graphql-ws"


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("https://evil.example", {}),
        ("null", {}),
        (None, {}),
        ("http://{host}", {"Host": "rebound.example.net"}),
        ("http://{host}", {"Sec-Fetch-Site": "cross-site"}),
    ],
    ids=str,
)
def test_a_websocket_of_another_page_is_refused(ui, origin, headers):
    with pytest.raises(InvalidStatus) as refused, ui.handshake(origin and origin.format(host=ui.host), **headers):
        pass
    assert refused.value.response.status_code == 403


def test_a_refused_websocket_gets_the_reason(ui):
    with pytest.raises(InvalidStatus) as refused, ui.handshake("https://evil.example"):
        pass
    assert b"Origin 'https://evil.example' is not allowed" in refused.value.response.body


# Reports


REPORTS = ["/report_asset_materialization/hello", "/report_asset_observation/hello", "/report_asset_check/hello"]


@pytest.mark.parametrize("path", REPORTS)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}], ids=str)
def test_a_report_without_the_token_is_refused(ui, path, headers):
    assert ui.ask("POST", path, JSON | headers, data="{}").status_code == 403


def test_a_report_with_a_wrong_token_is_refused(ui):
    assert ui.ask("POST", REPORTS[0], {"Authorization": f"Bearer {REPORT_TOKEN}x"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {REPORT_TOKEN}"}, {"X-Taxi-Report-Token": REPORT_TOKEN}],
    ids=["bearer", "own"],
)
def test_a_report_with_the_token_is_taken(ui, headers):
    assert ui.ask("POST", REPORTS[0], JSON | headers, data='{"metadata": {"rows": 1}}').status_code == 200


def test_a_report_from_another_page_is_refused_whatever_it_holds(ui):
    headers = {"X-Taxi-Report-Token": REPORT_TOKEN, "Origin": "https://evil.example"}
    assert ui.ask("POST", REPORTS[0], headers).status_code == 403


@pytest.mark.parametrize("token", ["", TOKEN])
def test_without_a_token_set_every_report_is_refused(viewers, token):
    headers = {"Authorization": f"Bearer {token}", "X-Taxi-Report-Token": token}
    assert viewers.ask("POST", REPORTS[0], JSON | headers, data="{}").status_code == 403


# Headers


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/server_info", 200), ("/favicon.svg", 200), ("/graphql", 405), ("/logs/a/b/c.out", 404)],
)
def test_no_answer_may_be_framed(ui, path, status):
    answer = ui.ask("GET", path)
    names = ("X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy")
    assert answer.status_code == status
    assert [answer.headers[name] for name in names] == ["DENY", "nosniff", "same-origin"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_dagsters_own_policy_stays(ui):
    policy = ui.ask("GET", "/").headers["Content-Security-Policy"]
    assert re.search(r"script-src 'nonce-\w+'", policy)


# Login


def login(server: Server, token: str, path: str = "/login", **headers: str) -> requests.Response:
    return server.ask("POST", path, {"Origin": server.url, **headers}, data={"token": token})


@pytest.fixture(scope="module")
def cookie(viewers):
    return login(viewers, TOKEN).headers["Set-Cookie"].split(";")[0]


def test_a_page_leads_to_the_login_and_back(viewers):
    answer = viewers.ask("GET", "/runs/a%20b?tab=x&y=%2F", {"Accept": "text/html,*/*"})
    assert answer.status_code == 303
    back = login(viewers, TOKEN, answer.headers["Location"])
    assert (back.status_code, back.headers["Location"]) == (303, "/runs/a%20b?tab=x&y=%2F")


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "%5c/evil.example", "%09//x"]
)
def test_the_login_leads_nowhere_else(viewers, wanted):
    location = login(viewers, TOKEN, f"/login?next={wanted}").headers["Location"]
    assert re.fullmatch(r"/([^/\\\s].*)?", location)


def test_without_the_token_nothing_but_the_login_and_the_health_check_answers(viewers):
    answers = {path: viewers.ask("GET", path).status_code for path in ("/", "/favicon.svg", "/login", "/server_info")}
    assert answers == {"/": 401, "/favicon.svg": 401, "/login": 200, "/server_info": 200}
    assert viewers.graphql("{ version }").status_code == 401


def test_the_token_lets_programs_in(viewers):
    assert viewers.graphql("{ version }", {"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_wrong_token_is_refused_and_takes_its_time(viewers):
    began = time.monotonic()
    assert viewers.graphql("{ version }", {"Authorization": "Bearer wrong"}).status_code == 401
    assert time.monotonic() - began >= WRONG_TOKEN_SECONDS


def test_a_wrong_login_is_refused_and_gets_no_cookie(viewers):
    answer = login(viewers, "wrong")
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False)
    assert "That is not the token." in answer.text


def test_the_cookie_lets_in(viewers, cookie):
    assert viewers.ask("GET", "/", {"Cookie": f"other=1; {cookie}"}).status_code == 200


def test_the_cookie_opens_websockets(viewers, cookie):
    with viewers.handshake(viewers.url, Cookie=cookie) as opened:
        assert opened.subprotocol == "graphql-ws"


def test_without_the_cookie_no_websocket_opens(viewers):
    with pytest.raises(InvalidStatus) as refused, viewers.handshake(viewers.url):
        pass
    assert refused.value.response.status_code == 401


def test_the_cookie_does_not_excuse_another_page(viewers, cookie):
    assert viewers.graphql("{ version }", {"Cookie": cookie, "Origin": "https://evil.example"}).status_code == 403


def test_the_cookie_cannot_be_prolonged_or_forged(viewers, cookie):
    name, _, value = cookie.partition("=")
    until, _, stamp = value.partition(".")
    for forged in (f"{int(until) + 1}.{stamp}", f"{until}.{stamp[:-1]}", f"{until}.", f".{stamp}", "", f"{until}.ü"):
        assert viewers.ask("GET", "/", {"Cookie": f"{name}={forged}".encode()}).status_code == 401


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_does_not_hold_the_token(viewers):
    value, *attributes = login(viewers, TOKEN).headers["Set-Cookie"].split("; ")
    assert re.fullmatch(rf"taxi_ui_{viewers.port}=\d+\.[0-9a-f]{{64}}", value)
    assert sorted(attributes) == ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=lax"]


def test_behind_https_the_cookie_is_for_https_only(viewers):
    assert login(viewers, TOKEN, Origin=f"https://{viewers.host}").headers["Set-Cookie"].endswith("; Secure")


def test_forwarded_headers_change_nothing(viewers):
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "1.2.3.4"}
    assert "Secure" not in login(viewers, TOKEN, **headers).headers["Set-Cookie"]


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
def test_a_login_from_another_page_is_refused(viewers, origin):
    headers = {"Origin": origin} if origin else {}
    assert viewers.ask("POST", "/login", headers, data={"token": TOKEN}).status_code == 403


def test_a_login_is_short(viewers):
    assert login(viewers, "x" * 5000).status_code == 413


# Read-only


@pytest.mark.parametrize(
    "mutation",
    [
        RESUME,
        "mutation { reloadWorkspace { __typename } }",
        'mutation { setConcurrencyLimit(concurrencyKey: "x", limit: 1) }',
        'mutation { deletePipelineRun(runId: "x") { __typename } }',
        'mutation { terminateRun(runId: "x") { __typename } }',
        'mutation { shutdownRepositoryLocation(repositoryLocationName: "hello") { __typename } }',
        'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["hello"]}}]) { __typename } }',
        'mutation { reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: ["x"]}})'
        " { __typename } }",
    ],
    ids=lambda mutation: mutation.split()[2].split("(")[0],
)
def test_viewers_change_nothing(viewers, mutation):
    answer = viewers.graphql(mutation, {"Authorization": f"Bearer {TOKEN}"})
    assert "UnauthorizedError" in answer.text


def test_viewers_get_answers_and_no_permission(viewers):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    viewers.graphql(RESUME, bearer)
    answer = viewers.graphql("{ instance { autoMaterializePaused } permissions { permission value } }", bearer).json()[
        "data"
    ]
    assert answer["instance"]["autoMaterializePaused"] is True
    assert not any(permission["value"] for permission in answer["permissions"])


# Settings


def test_nothing_is_asked_for_unless_set():
    access = load_access(3000, {})
    assert access.hosts == {"127.0.0.1:3000", "localhost:3000", "[::1]:3000"}
    assert (access.token, access.report_token, access.read_only) == ("", "", False)


def test_on_port_80_the_names_are_without_port():
    assert load_access(80, {}).hosts == {"127.0.0.1", "localhost", "[::1]"}


@pytest.mark.parametrize(("text", "read_only"), [("1", True), ("true", True), ("yes", True), ("0", False), ("", False)])
def test_what_is_not_plainly_off_is_read_only(text, read_only):
    assert load_access(3000, {"TAXI_UI_READ_ONLY": text}).read_only is read_only


TOKENS = ("TAXI_UI_TOKEN", "TAXI_REPORT_TOKEN", "TAXI_METRICS_TOKEN")


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("token", ["too-short", "holds a space, which is lost", "holds-an-ü-which-is-lost"])
def test_a_poor_token_is_refused_without_being_shown(name, token):
    with pytest.raises(SettingError, match=name) as error:
        load_access(3000, {name: token})
    assert token not in str(error.value)


def test_tokens_are_not_shown():
    assert TOKEN not in repr(load_access(3000, dict.fromkeys(TOKENS, TOKEN)))


def test_the_ui_is_served_on_loopback_only(tmp_path):
    command = [sys.executable, "-m", "taxi_platform.ui.webserver", str(tmp_path / "x.yaml"), "0.0.0.0", "3000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (
        1,
        ["The UI cannot be served on 0.0.0.0. Serve it on 127.0.0.1, behind a proxy with TLS and a login."],
    )


# The browser


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.refused = []
    page.live = []
    page.on("response", lambda answer: page.refused.append(answer.url) if 400 <= answer.status < 500 else None)
    page.on("websocket", lambda opened: opened.on("framereceived", lambda frame: page.live.append(frame)))
    yield page
    context.close()


@pytest.mark.browser
def test_the_ui_works_in_a_browser_with_its_live_logs(ui, page):
    page.goto(f"{ui.url}/locations")
    page.get_by_text("hello", exact=True).first.wait_for()
    page.goto(f"{ui.url}/assets/hello")
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    run_id = _newest_run(ui, "SUCCESS")
    page.goto(f"{ui.url}/runs/{run_id}")
    page.get_by_text("hello from the asset").first.wait_for()
    assert any("hello from the asset" in frame for frame in page.live)
    assert page.refused == []


def _wait_for_live(page) -> None:
    deadline = time.monotonic() + 60
    while not page.live:
        assert time.monotonic() < deadline, "No websocket delivered anything"
        page.wait_for_timeout(100)


def _newest_run(server: Server, status: str) -> str:
    query = "{ runsOrError(limit: 1) { ... on Runs { results { runId status } } } }"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        runs = server.graphql(query).json()["data"]["runsOrError"]["results"]
        if runs and runs[0]["status"] == status:
            return runs[0]["runId"]
        time.sleep(0.2)
    raise AssertionError(f"No run with status {status}")


@pytest.mark.browser
def test_the_login_lets_a_browser_in(viewers, page):
    page.goto(f"{viewers.url}/deployment/daemons")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Daemon statuses").first.wait_for()
    _wait_for_live(page)
    assert page.url == f"{viewers.url}/deployment/daemons"
    assert page.refused == []


@pytest.fixture
def other_site(ui):
    """A page of another origin that tries what a page can: a frame, an image, a socket, a request and a form."""
    query = f"{ui.url}/graphql?query={quote(RESUME)}"
    page = f"""<iframe src="{ui.url}/"></iframe><img src="{query}">
        <script>
        tried = Promise.allSettled([
            fetch("{query}", {{method: "POST", mode: "no-cors"}}),
            fetch("{ui.url}/graphql", {{method: "POST", headers: {{"Content-Type": "application/json"}},
                                        body: '{{"query": "{RESUME}"}}'}}),
            new Promise((opened, refused) => {{
                socket = new WebSocket("ws://{ui.host}/graphql", "graphql-ws");
                socket.onopen = opened; socket.onerror = refused;
            }}),
        ]).then(results => results.map(result => result.status));
        </script>
        <form method="post" action="{query}"><button>Win a prize</button></form>"""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.browser
def test_another_page_can_neither_frame_the_ui_nor_listen_nor_change_anything(ui, page, other_site):
    page.goto(other_site)
    # A request that a page may send but not read counts as sent; that it changed nothing is asserted below.
    assert page.evaluate("tried") == ["fulfilled", "rejected", "rejected"]
    assert [frame.url.split(":")[0] for frame in page.frames] == ["http", "chrome-error"]
    page.get_by_role("button", name="Win a prize").click()
    page.get_by_text("is not allowed").wait_for()
    assert ui.paused()
