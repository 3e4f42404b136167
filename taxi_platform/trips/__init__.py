"""The domain: months, datasets, contracts, cleaning and sample months. Knows neither Dagster nor any cloud client."""
