"""Jobs: what users ask of them (`endpoints`, `service`, `repository`), and how they move
(`lifecycle`, `transitions`).
"""
