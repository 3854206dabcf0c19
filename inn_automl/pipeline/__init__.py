"""The pipeline of a job: `run` calls the stages, `records` has what they hand on.

A stage is a module: checking, training, profiling, searching, measuring, fine_tuning, publishing.
Each leaves its result in the job's folder and is skipped when it is there.
"""
