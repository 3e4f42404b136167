"""Who is told what on /health and /metrics: with the right token, a wrong one, none; at home and behind a proxy."""

import json
import logging
import socket
import threading
from contextlib import contextmanager

import pytest
import requests
import uvicorn
from starlette.responses import PlainTextResponse

from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import SettingError
from taxi_platform.ui import guard as guard_module
from taxi_platform.ui.access import load_access
from taxi_platform.ui.guard import Guard
from taxi_platform.ui.health import Health
from taxi_platform.ui.monitoring import Monitoring
from taxi_platform.ui.webserver import main

TOKEN, UI_TOKEN = "a-token-for-metrics-0123456789", "a-token-for-the-ui-0123456789"
PROXY = "taxi.example.com"
SICK = Health({"lake": "It is away."})
EXPOSITION = "# EOF\n"


class Found:
    """Health and metrics that are known beforehand: what they say is tested elsewhere, here who hears it."""

    async def look(self):
        return SICK

    async def refresh(self):
        pass

    def exposition(self, health, accept):
        return EXPOSITION.encode(), "text/plain; version=0.0.4"


@contextmanager
def serving(**settings):
    """A guarded server with these settings under uvicorn; yields a function that asks it, whose `url` is its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = Monitoring(PlainTextResponse("the UI"), Found(), Found())
        guarded = Guard(app, load_access(port, settings))
        server = uvicorn.Server(uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def ask(path, token=None, method="GET", host=None, **headers):
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
            headers |= {"Host": host} if host else {}
            answer = requests.request(method, ask.url + path, headers=headers, timeout=300, allow_redirects=False)
            return answer.status_code, answer.text

        ask.url = f"http://127.0.0.1:{port}"
        try:
            yield ask
        finally:
            server.should_exit = True
            thread.join(300)


@pytest.fixture(autouse=True)
def wrong_tokens_are_answered_at_once(monkeypatch):
    monkeypatch.setattr(guard_module, "WRONG_TOKEN_SECONDS", 0.01)


def test_without_a_token_both_are_open_on_this_machine():
    with serving() as ask:
        assert ask("/metrics") == (200, EXPOSITION)
        status, body = ask("/health")
        assert (status, json.loads(body)["parts"]["lake"]) == (503, {"healthy": False, "problem": "It is away."})
        assert json.loads(body)["parts"]["database"] == {"healthy": True}
        assert ask("/anything") == (200, "the UI")


@pytest.mark.fault(128)
def test_with_a_token_metrics_need_exactly_that_one():
    with serving(TAXI_METRICS_TOKEN=TOKEN, TAXI_UI_TOKEN=UI_TOKEN) as ask:
        assert ask("/metrics", TOKEN) == (200, EXPOSITION)
        assert ask("/metrics")[0] == 401
        assert ask("/metrics", f"{TOKEN}x")[0] == 401
        assert ask("/metrics", UI_TOKEN)[0] == 401
        assert ask(f"/metrics?token={TOKEN}&access_token={TOKEN}")[0] == 401
        assert ask("/metrics", Cookie=f"taxi_ui={TOKEN}")[0] == 401
        assert TOKEN not in ask("/metrics")[1]
        assert ask("/server_info", TOKEN)[1] == "the UI"
        assert ask("/graphql", TOKEN)[0] == 405
        assert ask("/runs", TOKEN)[0] == 401, "it opens nothing else"


@pytest.mark.fault(128)
def test_strangers_are_told_the_code_of_health_alone():
    for settings in ({"TAXI_METRICS_TOKEN": TOKEN}, {"TAXI_UI_TOKEN": UI_TOKEN}, {"TAXI_UI_HOSTS": PROXY}):
        with serving(**settings) as ask:
            assert ask("/health") == (503, "")
            for token in filter(None, [settings.get("TAXI_METRICS_TOKEN"), settings.get("TAXI_UI_TOKEN")]):
                assert "It is away." in ask("/health", token)[1]
                assert ask("/health", f"{token}x") == (401, "The token is wrong.\n")


def test_with_a_ui_token_alone_metrics_are_as_any_page():
    with serving(TAXI_UI_TOKEN=UI_TOKEN) as ask:
        assert ask("/metrics")[0] == 401
        assert ask("/metrics", UI_TOKEN) == (200, EXPOSITION)


def test_a_login_shows_what_is_wrong_but_does_not_open_metrics_that_have_a_token():
    with serving(TAXI_METRICS_TOKEN=TOKEN, TAXI_UI_TOKEN=UI_TOKEN) as ask, requests.Session() as session:
        session.post(f"{ask.url}/login", {"token": UI_TOKEN}, headers={"Origin": ask.url}, timeout=300)
        assert session.get(f"{ask.url}/health", timeout=300).json()["healthy"] is False
        assert session.get(f"{ask.url}/metrics", timeout=300).status_code == 401


def test_behind_a_proxy_without_a_token_metrics_are_closed_and_say_why():
    with serving(TAXI_UI_HOSTS=PROXY) as ask:
        for host in (None, PROXY):
            status, text = ask("/metrics", host=host)
            assert (status, text) == (403, "Metrics are closed: TAXI_UI_HOSTS is set and TAXI_METRICS_TOKEN is not.\n")
    with serving(TAXI_UI_HOSTS=PROXY, TAXI_METRICS_TOKEN=TOKEN) as ask:
        assert ask("/metrics", TOKEN, host=PROXY) == (200, EXPOSITION)
    with serving(TAXI_UI_HOSTS="localhost:8000") as ask:  # the near end of a tunnel
        assert ask("/metrics", host="localhost:8000") == (200, EXPOSITION)


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_the_guards_rules_hold(path):
    with serving(TAXI_METRICS_TOKEN=TOKEN) as ask:
        assert ask(path, TOKEN, host="rebound.example.net")[0] == 403
        assert ask(path, TOKEN, "POST")[0] == 405
        assert ask(path, TOKEN, "POST", Origin="https://evil.example")[0] == 403
        assert ask(path, TOKEN, "HEAD") == (503 if path == "/health" else 200, "")


def test_a_token_that_is_too_short_is_refused_by_name(monkeypatch):
    with pytest.raises(SettingError, match="TAXI_METRICS_TOKEN is too short"):
        load_access(3000, {"TAXI_METRICS_TOKEN": "short"})
    assert TOKEN not in repr(load_access(3000, {"TAXI_METRICS_TOKEN": TOKEN}))
    monkeypatch.setenv("TAXI_METRIC_TOKEN", TOKEN)
    with pytest.raises(SettingError, match=r"TAXI_METRIC_TOKEN is not a setting. Did you mean TAXI_METRICS_TOKEN\?"):
        load_settings()


def test_that_metrics_are_closed_is_logged_at_start(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("TAXI_UI_HOSTS", PROXY)
    monkeypatch.setenv("TAXI_DATASETS", "none")  # ends it there
    with pytest.raises(SettingError, match="TAXI_DATASETS"):
        main("workspace.yaml", "127.0.0.1", 3000)
    assert "/metrics is closed: TAXI_UI_HOSTS is set, and TAXI_METRICS_TOKEN is not." in caplog.text
