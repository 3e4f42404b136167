"""What people and programs read once months are loaded, without Dagster.

Belongs here: the marts and the views over them, as SQL and columns (`tables.py`, `views.py`), carried to each engine by
sqlglot (`transpiling.py`, `view_sql.py`); months as data frames (`python_api.py`); the overview page and its charts
(`overview.py`, `charts.py`).
Does not belong here: how a month gets into the lake (`ingestion/`), and how tables are replaced (`warehouse/`).
"""
