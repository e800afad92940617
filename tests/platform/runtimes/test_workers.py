"""The threads of a runner: tasks run concurrently up to a limit, in order, on as few threads as possible."""

import queue
import threading
import time

import pytest

from llmasos_runner.workers import Workers


class Host:
    """Sends tasks through the message stream that `Workers` reads."""

    def __init__(self, limit=4, **options):
        self.messages = queue.SimpleQueue()
        self.workers = Workers(limit, self.read, **options)
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.fault = None
        self.server.start()

    def serve(self):
        try:
            self.workers.serve()
        except Exception as error:
            self.fault = error

    def read(self, seconds):
        try:
            message = self.messages.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(message, Exception):
            raise message
        return message

    def run(self, *tasks):
        """Run tasks, and wait until all have ended."""
        done = [threading.Event() for _ in tasks]
        for task, event in zip(tasks, done, strict=True):
            self.messages.put(lambda task=task, event=event: (task(), event.set()))
        for event in done:
            assert event.wait(30)

    def end(self):
        self.messages.put(EOFError())
        self.server.join(10)
        assert not self.server.is_alive()


@pytest.fixture
def host():
    host = Host()
    yield host
    host.end()


def test_tasks_run_at_once(host):
    met = threading.Barrier(4, timeout=10)
    host.run(*[met.wait] * 4)


def test_what_is_beyond_the_limit_waits_in_order():
    host = Host(limit=1)
    order = []
    host.run(*(lambda number=number: order.append(number) for number in range(20)))
    host.end()
    assert order == list(range(20))


def test_no_more_than_the_limit_run_at_once():
    host = Host(limit=3)
    running, most, lock = [0], [0], threading.Lock()

    def task():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.005)
        with lock:
            running[0] -= 1

    host.run(*[task] * 30)
    host.end()
    assert most == [3]


def test_short_tasks_in_sequence_run_on_one_thread_though_others_rest(host):
    met = threading.Barrier(4, timeout=10)
    host.run(*[met.wait] * 4)
    seen = set()
    for _ in range(50):
        host.run(lambda: seen.add(threading.get_ident()))
        time.sleep(0.001)  # until its thread is idle
    # On a busy machine a thread may become idle only after the next task went to another.
    assert len(seen) <= 2


def test_messages_are_read_while_every_thread_is_busy():
    host = Host(limit=1)
    answered = threading.Event()
    ended = threading.Event()
    host.messages.put(lambda: (answered.wait(10), ended.set()))
    host.messages.put(None)
    host.messages.put(lambda: None)
    time.sleep(0.02)
    assert host.messages.empty()
    answered.set()
    assert ended.wait(10)
    host.end()


def test_runs_are_watched_while_they_run_and_not_while_nothing_does():
    watched = []
    host = Host(watch=lambda: watched.append(time.monotonic()))
    host.run(lambda: time.sleep(0.3))
    while_running = len(watched)
    assert while_running >= 3
    time.sleep(0.1)
    at_rest = len(watched)
    time.sleep(0.2)
    assert len(watched) == at_rest
    host.end()


@pytest.mark.parametrize("fault", [EOFError(), ValueError("a broken frame")])
def test_the_end_and_a_fault_end_the_reading_though_a_task_runs(fault):
    host = Host()
    over = threading.Event()
    host.messages.put(lambda: over.wait(10))
    time.sleep(0.02)
    host.messages.put(fault)
    host.server.join(10)
    over.set()
    assert not host.server.is_alive()
    assert isinstance(host.fault, ValueError) is isinstance(fault, ValueError)
