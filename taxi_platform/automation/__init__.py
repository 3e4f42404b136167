"""What starts runs by itself: jobs, schedules, sensors and the freshness check.

Which months need a run is decided in `ingestion/survey.py`; runs that people start belong in `runs/`.
"""
