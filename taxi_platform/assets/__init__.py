"""The asset graph: thin Dagster assets and checks over the steps that do the work."""
