"""Wire models (pydantic) of the coordinator, its users, its workers and the device agents.

- `problems`: error bodies and their stable codes
- `access`: projects, keys
- `datasets`, `jobs`, `devices`: what users see
- `measurements`: what a device agent leases and posts
- `runs`: what a worker that runs a job receives and reports
"""
