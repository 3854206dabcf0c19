"""The whole service on one machine: coordinator, Ray, MLflow and a device agent, over one state
folder.

- `state_dir`: the folder: lock, secrets, addresses
- `process_specs`: command, environment and readiness of each process
- `processes`: processes of the stack, found by variables in their environment
- `supervisor`: starts the processes, restarts those that died, stops them
- `bootstrap`: secrets, keys and schema before the first start
"""
