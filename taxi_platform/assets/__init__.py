"""The asset graph as Dagster shows it: assets, checks, their metadata, resources, partitions and names.

An asset opens its resources, calls one step of `ingestion/` and reports the result. What is done to a month belongs in
`ingestion/`; what starts a run belongs in `automation/` and `runs/`.
"""
