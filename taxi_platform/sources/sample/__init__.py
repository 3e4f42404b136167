"""Synthetic months."""
