from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mission9.config import RunConfig
from mission9.doctor.buckets import examine_s3
from mission9.errors import OutputError, StorageError
from mission9.storage.s3 import client
from mission9.storage.s3 import lease as leases
from mission9.storage.s3.address import Address
from mission9.storage.s3.lease import Lease, leased
from mission9.storage.s3.objects import get_or_none, head
from tests.s3.conftest import Bucket
from tests.s3.faulty import Faults, faulty_server, refusal
from tests.support.held_up import wait_until

SETTLE = leases._SETTLE


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that come at once some are late where the machine is busy: longer than a server would be."""
    monkeypatch.setattr(leases, "_SETTLE", 2 * SETTLE)


@pytest.fixture
def place(bucket: Bucket) -> Address:
    return Address(bucket.name, "out/_state/lock")


def of_another_machine(place: Address, bucket: Bucket) -> None:
    held = json.loads(Lease(place).content())
    bucket.put(place.key, json.dumps({**held, "host": "elsewhere", "process": "another:machine:7:7"}).encode())


def test_the_second_is_told_who_the_first_is(place: Address, bucket: Bucket) -> None:
    with leased(place) as first:
        first.check()
        with (
            pytest.raises(
                OutputError, match=rf"another run is writing to s3://{bucket.name}/out: .*\"pid\": {os.getpid()}"
            ),
            leased(place),
        ):
            pass
    assert bucket.keys == []
    with leased(place):
        pass


def test_of_many_that_come_at_once_never_two_hold_it(place: Address, contest: None) -> None:
    told: list[str] = []

    def hold() -> None:
        try:
            with leased(place) as lease:
                told.append("held")
                wait_until(lambda: len(told) == 6)
                lease.check()
        except OutputError:
            told.append("refused")

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["held", *["refused"] * 5]


@pytest.mark.parametrize(
    "faults",
    [Faults(is_blind=True), Faults(forbidden="/probe-", refusal=refusal(501, "NotImplemented"))],
    ids=["ignored", "refused"],
)
def test_a_server_that_can_keep_no_lock_is_refused_before_a_living_one_is_overwritten(
    faults: Faults, place: Address, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another_machine(place, bucket)
    monkeypatch.setattr(client, "MAX_TRIES", 1)
    with faulty_server(bucket.server.port, faults) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        why = rf"^the server of s3://{bucket.name}/out ignores If-None-Match.* a folder$"
        with pytest.raises(OutputError, match=why), leased(place):
            pass
        config = RunConfig(input=str(tmp_path), output=f"{bucket}/out", weights="demo", runner="local", policy="none")
        (told,) = [finding for finding in examine_s3(config) if finding.what == "s3 output"]
        assert (told.status, "If-None-Match" in told.found) == ("problem", True)
    assert b"elsewhere" in bucket.get(place.key)
    assert bucket.keys == [place.key]


def test_a_process_of_this_machine_that_was_killed_holds_nothing(place: Address, bucket: Bucket) -> None:
    code = "import sys; from mission9.storage.s3.address import Address; "
    code += "from mission9.storage.s3.lease import Lease, _acquire; _acquire(Lease(Address(*sys.argv[1:])))"
    subprocess.run([sys.executable, "-c", code, bucket.name, place.key], check=True)
    assert place.key in bucket.keys
    with leased(place) as lease:
        lease.check()


def test_a_lock_of_another_machine_holds_until_it_is_too_old(
    place: Address, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another_machine(place, bucket)
    with pytest.raises(OutputError, match=r'"host": "elsewhere".* its lock expires within 60 seconds'), leased(place):
        pass
    monkeypatch.setattr(leases, "LEASE", 1.0)

    def is_taken_over() -> bool:
        try:
            with leased(place) as lease:
                lease.check()
        except OutputError:
            return False
        return True

    wait_until(is_taken_over)


def test_of_many_that_find_an_old_lock_one_gets_it(
    place: Address, bucket: Bucket, contest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    age = leases._age

    def of_old(address: Address) -> float | None:
        is_old, seconds = b"elsewhere" in (get_or_none(address, 1000) or b""), age(address)
        return None if seconds is None else seconds + 3600 * is_old

    of_another_machine(place, bucket)
    monkeypatch.setattr(leases, "_age", of_old)
    test_of_many_that_come_at_once_never_two_hold_it(place, contest)


def test_a_lock_is_renewed_and_one_that_is_lost_is_noticed(
    place: Address, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_EVERY", 0.2)
    monkeypatch.setattr(leases, "LEASE", 1.0)
    with leased(place) as lease:
        made = head(place)
        wait_until(lambda: head(place) != made)  # a second or two later: servers tell whole seconds
        lease.check()

        def is_lost() -> bool:
            if b"elsewhere" not in bucket.get(place.key):  # a renewal that had begun may overwrite it
                of_another_machine(place, bucket)
            return bool(lease.lost)

        wait_until(is_lost)
        with pytest.raises(StorageError, match="elsewhere.* holds it"):
            lease.check()
    assert place.key in bucket.keys  # it is the other's


def test_a_lock_grows_old_while_the_machine_sleeps(
    place: Address, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leased(place) as lease:
        of_another_machine(place, bucket)
        lease.check()  # renewed a moment ago
        awake = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: awake(clock) + 3600 * (clock == time.CLOCK_BOOTTIME))
        with pytest.raises(StorageError, match="elsewhere.* holds it"):
            lease.check()
