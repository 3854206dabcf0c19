"""Makes the buckets named on the command line where they are missing; S3's keys and endpoint come
from AWS_*.
"""

from __future__ import annotations

import sys

import s3fs

store = s3fs.S3FileSystem()
for bucket in sys.argv[1:]:
    if not store.exists(bucket):
        store.mkdir(bucket)
    print(f"bucket {bucket}: ready")
