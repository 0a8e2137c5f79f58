"""A reader process: it reads files, hashes them, and has them decoded by a decoder process of its own (`protocol`).

It parses no image: the digests that it reports are those of the files, whatever an image makes of its decoder.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from queue import Queue
from typing import Any, BinaryIO

from mission9.concurrency.watchdog import PATIENCE, limit_hangs
from mission9.decoding.decoder_process import Decoder, Success
from mission9.decoding.protocol import (
    FILE,
    HAS_READ,
    READY,
    RECORD,
    TO_READ,
    DecoderSettings,
    read_numbers,
    write_all,
)
from mission9.errors import ImageError
from mission9.storage.local.read_bytes import read_bytes


@dataclass
class _Batch:
    """Images that are read: the bytes and digest of each, or the reason of its rejection."""

    first: int
    images: list[tuple[bytes, bytes] | ImageError] = field(default_factory=list)
    seconds: float = 0.0


class Reader:
    """Reads the files of a batch while the decoder decodes those before."""

    def __init__(self, decoder: Decoder, max_bytes: int) -> None:
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._read: Queue[_Batch | Exception | None] = Queue(1)
        self._open, self._lock = 0, threading.Lock()

    def serve(self, requests: BinaryIO, answers: int) -> None:
        """Answer requests until the parent is gone."""
        self._decoder.start()
        threading.Thread(target=self._read_all, args=(requests,), daemon=True).start()
        write_all(answers, READY)
        while batch := self._read.get():
            try:
                if isinstance(batch, Exception):
                    raise batch
                answer = self._answer(batch)
            except Exception as error:  # of this process or its machine: no image's fault
                answer = _packed([], 0.0, 0.0, failure=f"{type(error).__name__}: {error}")
            write_all(answers, answer)
            self._count_open(-1)

    def _read_all(self, requests: BinaryIO) -> None:
        try:
            while header := read_numbers(requests, TO_READ):
                self._count_open(1)
                self._read.put(self._batch(requests, *header))
        except Exception as error:
            self._read.put(error)
        self._read.put(None)

    def _count_open(self, more: int) -> None:
        """Count the unanswered requests: while there are any, this process must not hang."""
        with self._lock:
            self._open += more
            limit_hangs(PATIENCE.hang if self._open else 0.0)

    def _batch(self, requests: BinaryIO, count: int, first: int) -> _Batch:
        start, batch = time.thread_time(), _Batch(first)
        files = [FILE.unpack(requests.read(FILE.size)) for _ in range(count)]
        for is_content, length in files:
            given = requests.read(length)
            try:
                data = given if is_content else read_bytes(given, max_bytes=self._max_bytes)
                batch.images.append((data, hashlib.sha256(data).digest()))
            except ImageError as error:
                batch.images.append(error)
        batch.seconds = time.thread_time() - start
        return batch

    def _answer(self, batch: _Batch) -> bytes:
        data = [image[0] for image in batch.images if not isinstance(image, ImageError)]
        outcomes = iter(self._decoder.decode(data, batch.first))
        decoded = [image if isinstance(image, ImageError) else next(outcomes) for image in batch.images]
        records, rejects, seconds = [], [], 0.0
        for at, (image, outcome) in enumerate(zip(batch.images, decoded, strict=True)):
            size, digest = (-1, b"") if isinstance(image, ImageError) else (len(image[0]), image[1])
            width = height = 0
            if isinstance(outcome, Success):
                width, height = outcome.width, outcome.height
                seconds += outcome.seconds
            else:
                rejects.append((at, "read" if size < 0 else "decode", outcome.reason, str(outcome)))
            records.append(RECORD.pack(width, height, size, digest))
        return _packed(records, batch.seconds, seconds, rejects=rejects)


def _packed(records: list[bytes], read: float, decode: float, **text: Any) -> bytes:
    told = json.dumps(text).encode()
    return HAS_READ.pack(len(records), read, decode, len(told)) + b"".join(records) + told


def main() -> None:
    """Run `python -m mission9.decoding.reader PREPROCESS MAX_PIXELS DECODE MAX_BYTES MEMORY TURNS`."""
    max_bytes, memory, turns = map(int, sys.argv[4:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    decoder = Decoder(DecoderSettings.of(sys.argv[1:]), memory, turns)
    try:
        Reader(decoder, max_bytes).serve(sys.stdin.buffer, sys.stdout.fileno())
    except BrokenPipeError:  # the parent is gone
        os._exit(1)


if __name__ == "__main__":
    main()
