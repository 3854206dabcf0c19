"""Reports of a finished job: figures, MLflow runs, and MLflow's UI.

`figures` (interactive) and `images` (PNG) draw a `JobResult`, `runs.publish` logs it to MLflow,
`views` prepares the charts that MLflow's own UI opens with, `store` says where MLflow keeps it
all, `server` shows it in a browser.
"""
