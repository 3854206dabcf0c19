"""The coordinator: an HTTP API over a database, and the loop that hands queued jobs to Ray.
Imports no torch, no Ray.

- `app`, `settings`, `access`, `problems`: the application and what all endpoints share
- `db/`: tables, sessions, migrations
- `datasets/`, `jobs/`, `devices/`, `runs/`, `projects/`: one domain each: `endpoints` -> `service`
  -> `repository`
- `dispatch/`: claims queued jobs, submits them to Ray, reaps what stopped
"""
