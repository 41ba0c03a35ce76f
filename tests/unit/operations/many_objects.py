"""moto with a bucket full of objects, made inside it: ``python -m tests.unit.operations.many_objects BUCKET COUNT``.

Put over HTTP, they would take longer than all that is tested with them.
"""

from __future__ import annotations

import sys

from moto.s3.models import s3_backends

from tests.support.servers.moto_process import main
from tests.support.servers.sqs import ACCOUNT, REGION

if __name__ == "__main__":
    name, count = sys.argv[1], int(sys.argv[2])
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket(name, REGION)
    for number in range(count):
        backend.put_object(name, f"data/{number:07d} ä+%.csv", b"x")
    main()
