"""Connections to a PostgreSQL schema: the URI with our parameter `schema`, and psycopg's errors translated to ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from taxi_platform.trips.errors import SettingError, WarehouseBusy, WarehouseError

EXPECTED_URI = (
    "It takes postgresql://user:password@host/database?schema=name; special characters in the password are "
    "percent-encoded (/ as %2F, @ as %40), other parameters are libpq's."
)
REFUSALS = {
    r"password|pg_hba\.conf|authentication": "refuses the login",
    r"role .* does not exist": "has no such user",
    r"database .* does not exist": "has no such database",
    r"SSL|TLS|certificate": "cannot be reached with the requested TLS options",
    r"translate host name": "has an unknown host name",
    r"invalid .*(value|option)": "does not accept the value of an option",
}
"""Permanent failures before a connection is open, when errors have a text but no code: pattern → meaning."""

TRANSIENT_STATES = ("08", "25P03", "40", "53300", "57P01", "57P02", "57P03", "57P05")
"""Codes of failures that pass: connection lost, idle for too long, deadlock, too many clients, server (re)starting."""


class PostgresSchema:
    """One schema of one database; `url` and `address` (what psql takes) show neither user nor password."""

    def __init__(self, uri: str, variable: str) -> None:
        self.variable = variable
        base, _, query = uri.partition("?")
        options = [option for option in query.split("&") if option]
        own = [option for option in options if option.startswith("schema=")]
        self.name = unquote(own[-1].removeprefix("schema=")) if own else "public"
        if not re.fullmatch(r"[A-Za-z_]\w{0,62}", self.name, re.ASCII):
            raise SettingError(f"{variable} has schema={self.name!r}, which is not a schema name.", EXPECTED_URI)
        libpq_options = "&".join(option for option in options if option not in own)
        unknown = None
        try:
            parameters = conninfo_to_dict(f"{base}?{libpq_options}" if libpq_options else base)
        except (psycopg.Error, UnicodeDecodeError) as error:  # not chained: its text may show the password
            unknown = re.search(r'query parameter: "(\w+)"', str(error))
            parameters = {"port": "unreadable"}
        if unknown and "@" not in query:  # before an @, the name may be a part of the password
            raise SettingError(f"{variable} has a parameter {unknown[1]}, which is unknown.", EXPECTED_URI)
        host, port, database = (str(parameters.get(key, "")) for key in ("host", "port", "dbname"))
        # An @ here means that a part of the password was parsed as host, port or database.
        if not re.fullmatch(r"[\d,]*", port) or "@" in host[1:] + database:
            raise SettingError(f"{variable} is not a PostgreSQL URI.", EXPECTED_URI)
        defaults = {"connect_timeout": "10", "fallback_application_name": "taxi_platform"}
        self._conninfo = make_conninfo("", **{**defaults, **parameters, "client_encoding": "utf8"})
        if host.startswith(("/", "@")):
            self.address = f"postgresql:///{quote(database)}?host={host}{f'&port={port}' if port else ''}"
        else:
            self.address = f"postgresql://{host}{f':{port}' if port else ''}/{quote(database)}"
        self.url = f"{self.address}{'&' if '?' in self.address else '?'}schema={self.name}"

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A connection for one use; each statement commits by itself unless inside `transaction()`.

        Translates every psycopg error raised inside: `WarehouseBusy` where a retry may help, else `WarehouseError`.
        """
        try:
            # No prepared statements: poolers such as PgBouncer do not keep them.
            with psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None) as con:
                con.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                con.execute("SET datestyle = 'ISO, YMD'")  # partition bounds are compared as text
                yield con
        except psycopg.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: psycopg.Error) -> WarehouseError:
        message = re.sub(r"\n\tIs the server running.*", "", str(error))  # libpq's hint, which ends in a question mark
        text = " ".join(message.split())[:400].rstrip(".")
        if isinstance(error, errors.InsufficientPrivilege):
            return WarehouseError(
                f"{self.url} denies the user of {self.variable} a permission that a load needs: {text}.",
                f"The user must own the tables; it also needs GRANT CREATE, USAGE ON SCHEMA {self.name}.",
            )
        before_connection = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
        for pattern, meaning in REFUSALS.items():
            if before_connection and re.search(pattern, text):
                return WarehouseError(f"{self.url} {meaning}: {text}.", f"Correct {self.variable}.")
        if before_connection or (error.sqlstate or "").startswith(TRANSIENT_STATES):
            return WarehouseBusy(
                f"{self.url} cannot be reached or has closed the connection: {text}.",
                f"Run again when the server is up; if it is, correct {self.variable}.",
            )
        return WarehouseError(
            f"{self.url} failed: {text}.", "A table that you drop will be loaded again from the lake."
        )
