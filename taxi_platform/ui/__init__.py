"""Dagster's own UI, served safely on this machine.

Belongs here: who may reach the UI (`access`), which requests pass (`guard`), the webserver process (`webserver`), and
the supervisor that starts and ends code server, daemon and webserver together (`supervisor`), each a `child` that is
started again when it ends (`daemon` is Dagster's own). And what tells others how it is (`monitoring`: `health`,
`metrics`, whose values come from `metric_sources`, `metric_months` and `metric_steps`).
Does not belong here: pages of our own, anything that changes a month, and TLS or user accounts, which a
proxy brings (docs/sharing-the-ui.md).
"""
