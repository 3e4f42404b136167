"""Dagster's own UI, served safely on this machine.

Belongs here: who may reach the UI (`access`), which requests pass (`guard`), the webserver process (`webserver`), and
the supervisor that starts and ends code server, daemon and webserver together (`supervisor`), each a `child` that is
started again when it ends (`daemon` is Dagster's own).
Does not belong here: pages of our own, anything that reads or changes a month, and TLS or user accounts, which a
proxy brings (docs/sharing-the-ui.md).
"""
