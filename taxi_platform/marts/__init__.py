"""What people and programs read once months are loaded, without Dagster.

Belongs here: months as data frames (`python_api.py`), the overview page and its charts (`overview.py`, `charts.py`).
Does not belong here: how a month gets into the lake (`ingestion/`), and how tables are replaced (`warehouse/`).
"""
