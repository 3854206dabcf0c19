"""Migrations, one a file in `versions/`, run by `inn_automl_services.coordinator.db.migrate`."""
