"""Synthetic months in the exact layouts of the TLC's CSV files, for demos and tests without a network.

Belongs here: how an era's file is laid out (`layouts.toml`) and what it contains (`shares.toml`), both as data; drawing
values (`values`), printing them (`writing`), and the source that publishes them (`source`).
Does not belong here: reading or cleaning. Nothing here imports the contract, so that tests compare two descriptions.
"""
