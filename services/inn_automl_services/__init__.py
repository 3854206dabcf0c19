"""The coordinator and the stack around it. Stands on `inn_automl`, knows nothing of `workers`."""
