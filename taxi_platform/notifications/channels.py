"""A channel of notifications: one Apprise URL, named by its position and scheme because the rest may be secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING

from taxi_platform.trips.errors import SettingError

if TYPE_CHECKING:
    from apprise import AppriseResult, NotifyBase

SEND_SECONDS, SOCKET_SECONDS = 20, 8.0
TAKES = "It takes Apprise URLs separated by spaces, such as mailto://user:password@host or json://host/path."

_sending: ContextVar[bool] = ContextVar("sending", default=False)


@dataclass(frozen=True)
class Message:
    """What is told about one run. Its id is the run's and how it ended: the same however often it is composed."""

    id: str
    title: str
    body: str
    failure: bool = False


class Channel:
    """One Apprise URL, named by position and scheme."""

    def __init__(self, position: int, url: str) -> None:
        self._url = url
        scheme = re.match(r"[a-z0-9]{1,20}(?=://)", url, re.IGNORECASE)
        self.name = f"{position} {scheme[0].lower() if scheme else 'unreadable'}"

    @cached_property
    def service(self) -> NotifyBase | None:
        """Apprise's object for the URL, or None; it follows no redirect, which would carry the secret elsewhere."""
        _hush()
        import apprise  # 0.2 s, and 0.3 s more to make the first service

        asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, service_timeout=SEND_SECONDS)
        service = apprise.Apprise.instantiate(self._url, asset=asset)
        if service is not None:
            service.redirects = False
            service.socket_connect_timeout = min(service.socket_connect_timeout, SOCKET_SECONDS)
            service.socket_read_timeout = min(service.socket_read_timeout, SOCKET_SECONDS)
        return service

    def send(self, message: Message) -> str | None:
        """Send once, within `SEND_SECONDS`; returns None, or what went wrong in words that hold nothing of the URL."""
        import apprise

        service = self.service
        if service is None:
            return "Apprise cannot read its URL"
        if isinstance(headers := getattr(service, "headers", None), dict):
            headers["X-Taxi-Message-Id"] = message.id
        sender = apprise.Apprise(asset=service.asset)
        sender.add(service)
        kind = apprise.NotifyType.FAILURE if message.failure else apprise.NotifyType.SUCCESS
        token = _sending.set(True)
        try:
            result = sender.notify(message.body, message.title, kind, body_format=apprise.NotifyFormat.TEXT.value)
        except Exception as error:  # a channel's trouble, whatever it is, must reach neither the sensor nor a log
            return f"Apprise failed with {type(error).__name__}"
        finally:
            _sending.reset(token)
        return None if result else _problem(result)


@cache
def _hush() -> None:
    """Keep Apprise's log lines, which name hosts, to the result they belong to; urllib3's, which name paths, away."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(logging.NullHandler())
    logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not _sending.get())


def _problem(result: AppriseResult) -> str:
    lines = " ".join(entry.message for entry in result.logs())
    if status := re.search(r"error=(\d{3})\b", lines):
        known = int(status[1]) in set(HTTPStatus)
        return f"it answered {status[1]}{f' ({HTTPStatus(int(status[1])).phrase})' if known else ''}"
    if result.timeout_count or "onnection error" in lines:
        return "it could not be reached, refused the login, or did not answer in time"
    return "it did not take the message"


def advice(problem: str) -> str:
    """What to do about a channel's problem."""
    for pattern, advice in (
        ("answered 3", "It redirects, which is not followed: give the address that it points to."),
        ("answered 40[13]", "Check user, password or token in its URL."),
        ("answered (429|5)", "Try again later: the trouble is the channel's own."),
        ("answered 4", "Check host and path in its URL."),
    ):
        if re.search(pattern, problem):
            return advice
    return "Check host, port, user and password in its URL, and whether this machine may reach it."


def open_channels(urls: Sequence[str]) -> dict[str, Channel]:
    """The channels by name."""
    channels = [Channel(position, url) for position, url in enumerate(urls, 1)]
    return {channel.name: channel for channel in channels}


def check_notify_urls(urls: Sequence[str]) -> None:
    """Raise `SettingError` for a URL that Apprise cannot read, without printing it."""
    for position, channel in enumerate(open_channels(urls).values(), 1):
        if channel.service is None:
            raise SettingError(f"TAXI_NOTIFY_URLS: Apprise cannot read its URL number {position}.", TAKES)
