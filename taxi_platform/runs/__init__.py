"""Dagster runs started from a command line, and what past runs say.

Here: the Dagster instance, running one month or many, the results, the run history and Dagster's internals.
Not here: what starts runs by itself (`automation/`), what a run does to a month (`assets/`, `ingestion/`) and what is
printed (`output.py`).

`instance.py` opens Dagster's instance · `home.py` writes and checks its `dagster.yaml` ·
`home_record.py` notes which versions opened a home · `sqlite.py` waits for its
databases and names damaged ones · `clock.py` forgets times ahead · `ingest.py` runs one month · `many_months.py` runs
many in several processes · `through_dagster.py` queues them for the daemon and follows them · `agents/` executes what
the daemon starts, on other machines · `result.py` holds the outcome of a month · `history.py` reads past runs ·
`status.py` is the state of every month.
"""
