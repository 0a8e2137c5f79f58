"""A bucket on the loopback that can be listed and holds nothing: keys of images, as many as are asked for.

python -m benchmarks.measure.listed_bucket IMAGES FOLDER_IMAGES

It says its address, and ends when its input does. A real server would need an hour to be given a million objects; what
the client makes of its pages, a thousand keys each, is the same.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PREFIX = "images/Training/"
_PAGE = 1000
_ABOVE_SLASH = "0"  # the character after it
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_FACTS = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{:032x}&quot;</ETag><Size>5000</Size>"


class Keys:
    """`images` keys in order, `folder_images` below each prefix of one level."""

    def __init__(self, images: int, folder_images: int) -> None:
        self._numbers = range(images)
        self._folder_images = folder_images

    def key(self, number: int) -> str:
        return f"{PREFIX}label {number // self._folder_images:06}/{number:09}_100.jpg"

    def page(self, prefix: str, after: str, delimiter: str) -> tuple[list[int], list[str], str]:
        """Numbers of keys, common prefixes, and after what the next page begins; empty where there is none."""
        at = max(bisect_left(self._numbers, prefix, key=self.key), bisect_right(self._numbers, after, key=self.key))
        numbers: list[int] = []
        prefixes: list[str] = []
        last = ""
        while at < len(self._numbers) and (key := self.key(at)).startswith(prefix):
            if len(numbers) + len(prefixes) == _PAGE:
                return numbers, prefixes, last
            rest, slash, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if slash:
                prefixes.append(prefix + rest + slash)
                last = prefix + rest + _ABOVE_SLASH
                at = bisect_left(self._numbers, last, key=self.key)
            else:
                numbers.append(at)
                last = key
                at += 1
        return numbers, prefixes, ""


def pieces(keys: Keys, query: dict[str, str]) -> Iterator[str]:
    """The answer to ListObjectsV2."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token") or query.get("start-after", "")
    numbers, prefixes, following = keys.page(prefix, after, delimiter)
    yield f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{_SPACE}"><Name>bucket</Name>'
    yield f"<Prefix>{prefix}</Prefix><KeyCount>{len(numbers) + len(prefixes)}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
    yield f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>"
    if following:
        yield f"<NextContinuationToken>{following}</NextContinuationToken>"
    for number in numbers:
        yield f"<Contents><Key>{keys.key(number)}</Key>{_FACTS.format(number)}</Contents>"
    for found in prefixes:
        yield f"<CommonPrefixes><Prefix>{found}</Prefix></CommonPrefixes>"
    yield "</ListBucketResult>"


def main() -> None:
    keys = Keys(int(sys.argv[1]), int(sys.argv[2]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """A page of keys; of an object, that it is gone."""
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            body = "".join(pieces(keys, query)).encode() if "list-type" in query else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
