"""What is done to a month, without Dagster."""
