"""Takes jobs from the queue to Ray and back.

- `dispatcher`: the loop over the periodic tasks
- `claimer`: claims queued jobs and submits them
- `reconciler`: compares runs with jobs; marks lost, requeues, cancels, stops
- `log_collector`, `job_log`: copy what runs print into the logs of their jobs
- `outcomes`: what a run's end does to its job
- `repository`: the SQL: whose turn it is, and what runs
- `runner`, `ray_jobs`: the seam to what runs jobs, and Ray behind it
"""
