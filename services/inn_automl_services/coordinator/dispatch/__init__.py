"""From the queue to Ray and back: who is next (`repository`), who runs it (`runner`, `ray_jobs`),
and the loop.
"""
