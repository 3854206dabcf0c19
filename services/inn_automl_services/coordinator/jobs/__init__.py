"""Jobs: requests of users (`endpoints`, `service`, `repository`) and changes of state (`lifecycle`,
`transitions`).
"""
