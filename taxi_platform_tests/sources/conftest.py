"""A web server for the tests of HTTP sources: one per module, emptied before each test."""

import pytest

from taxi_platform_tests.support.web_server import serving


@pytest.fixture(scope="module")
def server():
    with serving() as web:
        yield web


@pytest.fixture
def web(server):
    server.pages.clear()
    server.requests.clear()
    return server
