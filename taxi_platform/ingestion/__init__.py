"""What is done to a month: fetch, clean, load, check; and the survey that says which months need it.

Here belongs every decision about a month that lake, source and warehouse together can answer. Nothing here knows
Dagster (that is `assets/`), nor how a file is parsed (`trips/`), stored (`lake/`) or loaded (`warehouse/`).
"""
