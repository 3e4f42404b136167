"""Runs on other machines: Dagster hands each run to a queue, and agents take them from there.

Here: Dagster's run launcher for Celery with guards, the process of an agent, what agents must share, and who serves
which queue. Not here: the sensor that looks after waiting runs (`automation/agents.py`) and the commands
(`cli_agents.py`).

`broker.py` is Celery over Redis, as launcher and agents use it · `launcher.py` is what `dagster.yaml` names ·
`health.py` says when a run has lost its agent · `waiting.py` looks after runs that no agent has taken yet ·
`worker.py` is the process of an agent · `shared.py` compares what agents must share · `listing.py` is what
`taxi agents` shows, and `check.py` what `taxi doctor` says of it.
"""
