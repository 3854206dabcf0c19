"""Devices and their measurements.

- `endpoints`, `service`: devices that agents register
- `measurement_endpoints`, `measurements`: requested by workers, leased and answered by agents
- `repository`: the SQL of both
"""
