"""What is done to a month: fetch, clean, load, check; and the survey that says which months need it.

Belongs here: every decision about a month that is made from source, lake and warehouse together.
Does not belong here: Dagster (`assets/`), and how a file is parsed (`trips/`), stored (`lake/`), loaded (`warehouse/`).
"""
