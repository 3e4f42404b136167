"""Dagster's UI, safely served."""
