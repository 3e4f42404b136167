"""Runs that are killed, and runs at the same time: what they leave must be what an undisturbed run leaves."""
