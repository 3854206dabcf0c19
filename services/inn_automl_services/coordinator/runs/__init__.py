"""Runs: assignments, heartbeats and results of the workers of jobs."""
