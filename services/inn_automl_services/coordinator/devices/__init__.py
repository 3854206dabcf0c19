"""Devices and what they measure.

- `endpoints`, `service`: devices that agents register
- `measurement_endpoints`, `measurements`: what workers ask for, and agents lease and answer
- `repository`: the SQL of both
"""
