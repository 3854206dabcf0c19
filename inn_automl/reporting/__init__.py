"""What a finished job leaves for people to look at: figures, MLflow runs, and the MLflow UI over
them.

`figures` (interactive) and `images` (PNG) draw a `JobResult`, `runs.publish` logs it to MLflow,
`views` prepares the charts that MLflow's own UI opens with, `store` says where MLflow keeps it
all, `server` shows it in a browser.
"""
