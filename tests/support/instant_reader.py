"""A reader process that answers at once, without reading or decoding: what remains is the cost of feeding it.

It stands in for `python -m mission9.decoding.reader`, and takes the same arguments.
"""

from __future__ import annotations

import sys

from mission9.decoding.protocol import FILE, HAS_READ, READY, RECORD, TO_READ, read_numbers

requests, answers = sys.stdin.buffer, sys.stdout.buffer
answers.write(READY)
answers.flush()
while header := read_numbers(requests, TO_READ):
    lengths = [FILE.unpack(requests.read(FILE.size))[1] for _ in range(header[0])]
    requests.read(sum(lengths))
    text = b'{"rejects": []}'
    answers.write(HAS_READ.pack(header[0], 0.0, 0.0, len(text)))
    answers.write(RECORD.pack(100, 100, 5000, bytes(32)) * header[0] + text)
    answers.flush()
