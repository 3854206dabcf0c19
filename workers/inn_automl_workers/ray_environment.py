"""Environment variables that Ray reads when it is imported; the package imports this first."""

from __future__ import annotations

import os
import secrets

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Tune's handler would turn Ctrl-C into a normal end of training.
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
# Every node must present the same token; without one here Ray writes one into the home folder,
# which a node started by hand would not find.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# A worker's report waits until Ray Train polls; the default of 2 s is too seldom for short epochs.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
