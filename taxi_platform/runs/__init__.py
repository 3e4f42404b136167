"""Runs begun elsewhere than in the UI."""
