"""How fast the platform is, as ratios to a plain way of doing the same work: `python -m benchmarks` (`make bench`).

`measure.py` times and compares, `months.py` makes the input, `report.py` writes the table; each other module measures
one group of its rows. `archive.py`, `backfill.py` and `ui.py` take hours and run alone (`make bench-archive`).
"""
