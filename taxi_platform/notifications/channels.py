"""Channels of notifications: an Apprise URL each, shown by position and scheme because the rest may be secret."""

from __future__ import annotations

import hmac
import logging
import re
import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING

from taxi_platform.settings import Settings
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.text import printable, printable_lines

if TYPE_CHECKING:
    from apprise import AppriseResult, NotifyBase

SEND_SECONDS, SOCKET_SECONDS = 20, 8.0
EXPECTED_URLS = "Use Apprise URLs separated by spaces, such as mailto://user:password@host or json://host/path."

_sending: ContextVar[bool] = ContextVar("sending", default=False)


@dataclass(frozen=True)
class Message:
    """A message about one run. Its id is made from the run's id and status, so that composing it again repeats it."""

    id: str
    title: str
    body: str
    failure: bool = False


class Channel:
    """One Apprise URL, shown by its position and scheme: `1 json`."""

    def __init__(self, position: int, url: str) -> None:
        self._url = url
        scheme = re.match(r"[a-z0-9]{1,20}(?=://)", url, re.IGNORECASE)
        self._scheme = scheme[0].lower() if scheme else "unreadable"
        self.name = f"{position} {self._scheme}"

    def fingerprint(self, salt: bytes) -> str:
        """The recipient's identity, wherever its URL stands in TAXI_NOTIFY_URLS.

        The password after the user's name is left out, so that correcting it keeps the recipient. 32 bits tell a few
        URLs apart, and are too few to recover a token from.
        """
        recipient = re.sub(r"(://[^:@/?]*):[^@/?]*@", r"\1@", self._url)
        return f"{self._scheme} {hmac.new(salt, recipient.encode(), 'sha256').hexdigest()[:8]}"

    @cached_property
    def service(self) -> NotifyBase | None:
        """Apprise's object for the URL, None if it cannot be parsed. Redirects, which could leak secrets, are off."""
        _mute_logs()
        import apprise  # 0.2 s, and 0.3 s more to make the first service

        asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, service_timeout=SEND_SECONDS)
        service = apprise.Apprise.instantiate(self._url, asset=asset)
        if service is not None:
            service.redirects = False
            service.socket_connect_timeout = min(service.socket_connect_timeout, SOCKET_SECONDS)
            service.socket_read_timeout = min(service.socket_read_timeout, SOCKET_SECONDS)
        return service

    def send(self, message: Message) -> str | None:
        """Send once, within `SEND_SECONDS`; returns None, or the problem in words that contain nothing of the URL."""
        import apprise

        service = self.service
        if service is None:
            return "Apprise cannot parse its URL"
        if isinstance(headers := getattr(service, "headers", None), dict):
            headers["X-Taxi-Message-Id"] = message.id
        sender = apprise.Apprise(asset=service.asset)
        sender.add(service)
        kind = apprise.NotifyType.FAILURE if message.failure else apprise.NotifyType.SUCCESS
        body, title = printable_lines(message.body), printable(message.title)  # an outbox may be of an older version
        token = _sending.set(True)
        try:
            result = sender.notify(body, title, kind, body_format=apprise.NotifyFormat.TEXT.value)
        except Exception as error:  # no problem of a channel may stop the sensor or reach a log
            return f"Apprise failed with {type(error).__name__}"
        finally:
            _sending.reset(token)
        return None if result else _problem(result)


@cache
def _mute_logs() -> None:
    """Keep Apprise's log lines (they name hosts) and, while sending, urllib3's (they name paths) out of all logs."""
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
    return "it did not accept the message"


def advice(problem: str) -> str:
    """The remedy for a problem that `Channel.send` returned."""
    for pattern, remedy in (
        ("answered 3", "Redirects are not followed: use the address that it redirects to."),
        ("answered 40[13]", "Check user, password or token in its URL."),
        ("answered (429|5)", "Try again later: the problem is on the channel's side."),
        ("answered 4", "Check host and path in its URL."),
    ):
        if re.search(pattern, problem):
            return remedy
    return "Check host, port, user and password in its URL, and whether this machine can reach it."


def open_channels(urls: Sequence[str]) -> list[Channel]:
    """The channels of TAXI_NOTIFY_URLS, in its order."""
    return [Channel(position, url) for position, url in enumerate(urls, 1)]


def check_notify_urls(urls: Sequence[str]) -> None:
    """Raise `SettingError` for a URL that Apprise cannot parse, without showing it."""
    for position, channel in enumerate(open_channels(urls), 1):
        if channel.service is None:
            raise SettingError(f"TAXI_NOTIFY_URLS: Apprise cannot parse URL number {position}.", EXPECTED_URLS)


def send_test(settings: Settings, log: Callable[[str], None]) -> bool:
    """Send a test message to every channel now; logs for each whether it worked, and otherwise what to do.

    Returns whether all worked; raises `SettingError` if no channel is configured or a URL cannot be parsed.
    """
    if not settings.notify_urls:
        raise SettingError("TAXI_NOTIFY_URLS is not set.", EXPECTED_URLS)
    check_notify_urls(settings.notify_urls)
    message_id = f"test-{uuid.uuid4()}"
    body = f"This channel receives the messages about taxi runs.\nUI: {settings.ui_url}\nMessage id: {message_id}"
    worked = True
    for channel in open_channels(settings.notify_urls):
        problem = channel.send(Message(message_id, "taxi: test message", body))
        log(f"Channel {channel.name}: {f'failed: {problem}. {advice(problem)}' if problem else 'sent.'}")
        worked = worked and problem is None
    return worked
