"""The domain: what a month of trips is, and how it becomes clean.

Belongs here: months, datasets and contracts; file formats, reading and casting; cleaning and its report; errors;
fault points; reference data; locks between processes of this machine, and what tells processes apart. All of it takes
values and local paths, and returns values.

Does not belong here: where files come from (`sources/`), where files and tables are stored (`lake/`, `warehouse/`),
the order of the steps (`ingestion/`), and anything that needs Dagster, a cloud client, a database server's driver or
an HTTP client.
"""
