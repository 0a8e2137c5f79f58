from __future__ import annotations

import threading

import pytest

from mission9.concurrency.background import background_thread, run_with_deadline


def test_work_beside_is_done_when_the_context_is() -> None:
    done = threading.Event()

    def work(ended: threading.Event) -> None:
        ended.wait()
        done.set()

    with background_thread(work):
        assert not done.is_set()
    assert done.is_set()


def test_a_ctrl_c_does_not_wait_for_a_server_that_is_gone() -> None:
    never = threading.Event()
    with pytest.raises(KeyboardInterrupt), background_thread(lambda _: [never.wait()].clear()):
        raise KeyboardInterrupt
    run_with_deadline(never.wait)


def test_what_little_matters_may_fail() -> None:
    run_with_deadline(lambda: 1 / 0)
