"""Datasets of a project: uploaded or fetched, checked in a process of their own, then stored by
their hash.
"""
