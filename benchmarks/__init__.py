"""Numbers that inn_automl has to reach, each measured side by side with what it is compared to."""
