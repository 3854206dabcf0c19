"""The one HTTP layer of client, device agent and worker.

- `connection`: requests to a coordinator with a key, retried
- `retries`: the one policy and the one table of retried statuses
- `problems`: an answer of status 400 or above as the exception that it carries
- `heartbeats`: a thread that renews a lease
"""
