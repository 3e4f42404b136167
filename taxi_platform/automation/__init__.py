"""What starts runs by itself: jobs, schedules, sensors and the freshness check.

What a tick decides stands in `ingestion/survey.py`; runs that people start belong in `runs/`.
"""
