"""Health, readiness, metrics, version, and who asks."""
