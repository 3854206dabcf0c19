"""The one HTTP layer of client, device agent and worker.

- `problems`: an answer of status 400 or above as the exception that it carries
"""
