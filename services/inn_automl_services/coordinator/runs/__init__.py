"""Runs: what the worker of a job is told and reports."""
