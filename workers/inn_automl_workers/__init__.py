"""A job's work on a Ray cluster: speaks HTTP to the coordinator, knows no database.

- `run_job`: entry point of a run, one attempt at one job
- `settings`, `job_folder`, `dataset_cache`, `mirror`: where a run finds and leaves its files
- `reporter`, `run_progress`, `artifacts`, `failures`: reports to the coordinator
- `remote_measure`: latencies from device agents
- `ray_backend`: the pipeline's backend, over `ray_cluster`, `ray_tasks`, `tune_trials` and
  `distributed`
"""

from inn_automl_workers import ray_environment as ray_environment
