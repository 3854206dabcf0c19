"""Migrations, one a file in `versions/`, run by `services.coordinator.db.migrate`."""
