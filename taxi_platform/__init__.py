"""New York's taxi trips, every month since 2009, in a lake and a warehouse, as a Dagster asset platform."""

__version__ = "0.1.0"
