"""The stages of a job, one a file. Each leaves its result in the job's folder and is skipped when
it is there.
"""
