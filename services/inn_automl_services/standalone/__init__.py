"""The whole service on one machine: coordinator, Ray, MLflow and a device agent, over one home
folder.

- `home`: the folder: lock, secrets, addresses
- `parts`: how each part is started and when it is ready
- `processes`: processes of the stack, found by what is in their environment
- `supervisor`: starts the parts, keeps them running, stops them
"""
