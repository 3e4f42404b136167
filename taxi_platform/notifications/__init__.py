"""Messages about finished runs."""
