"""Who reads the host's messages in a runner: never nobody, never two, and a run that is alone for itself."""

import ctypes
import queue
import random
import threading
import time

import pytest

from llmasos_runner.workers import PATIENCE_SECONDS, Workers

LONG = 20 * PATIENCE_SECONDS


class Interrupted(BaseException):
    pass


class Answer:
    def __init__(self):
        self.came = False
        self.news = threading.Lock()
        self.news.acquire()


class Host:
    """Answers what tasks ask, through the one stream of messages that `Workers` reads."""

    def __init__(self, limit=4, **options):
        self.messages = queue.SimpleQueue()
        self.readers = []
        self.reading = threading.Lock()
        self.workers = Workers(limit, self.read, **options)
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.fault = None

    def serve(self):
        try:
            self.workers.serve()
        except Exception as error:
            self.fault = error

    def read(self, seconds):
        assert self.reading.acquire(blocking=False), "two threads read at once"
        try:
            message = self.messages.get(timeout=seconds)
        except queue.Empty:
            return None
        finally:
            self.readers.append(threading.get_ident())
            self.reading.release()
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Answer):
            message.came = True
            message.news.release()
            return None
        return message

    def ask(self, answer=None):
        """What a task does to call the host."""
        if answer is None:
            answer = Answer()
            self.messages.put(answer)
        until = time.monotonic() + 10
        while not answer.came:
            assert time.monotonic() < until, "the answer did not come"
            self.workers.wait(answer.news, 0.5)

    def run(self, *tasks):
        done = [threading.Event() for _ in tasks]
        for task, event in zip(tasks, done, strict=True):
            self.messages.put(lambda task=task, event=event: (task(), event.set()))
        if not self.server.is_alive():
            self.server.start()
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


def test_a_task_that_is_alone_reads_its_own_answers(host):
    seen = []

    def task():
        seen.append(threading.get_ident())
        for _ in range(100):
            host.ask()
        seen.append(host.readers[-100:])

    host.run(task)
    thread, readers = seen
    # A busy machine may hold the thread up for a moment, and another reads then.
    assert readers.count(thread) > 80


def test_it_does_so_again_after_another_thread_read_for_it(host):
    seen = []

    def task():
        time.sleep(LONG)
        host.ask()
        for _ in range(100):
            host.ask()
        seen.extend((threading.get_ident(), list(host.readers)))

    host.run(task)
    thread, readers = seen
    assert readers[1] != thread  # what came while it was busy was read at once
    assert readers[-100:].count(thread) > 80


def test_a_task_that_comes_while_another_waits_runs_at_once(host):
    met = threading.Barrier(2, timeout=10)
    answer = Answer()
    began = threading.Event()

    def first():
        began.set()
        host.ask(answer)
        met.wait()

    host.run(lambda: None)
    done = threading.Thread(target=host.run, args=(first,))
    done.start()
    assert began.wait(5)
    time.sleep(LONG)
    host.messages.put(met.wait)
    time.sleep(LONG)
    host.messages.put(answer)
    done.join(10)
    assert not done.is_alive()


def test_what_is_beyond_the_limit_waits_in_order():
    host = Host(limit=1)
    order = []

    def task(number):
        host.ask()
        order.append(number)

    host.run(*(lambda number=number: task(number) for number in range(20)))
    host.end()
    assert order == list(range(20))


def test_many_tasks_that_are_interrupted_anywhere_lose_no_message():
    active = {}
    lock = threading.Lock()

    def watch(shielded):
        with lock:
            for thread, runs in active.items():
                if runs and thread != shielded and random.random() < 0.3:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Interrupted))

    host = Host(limit=8, watch=watch)
    struck = []

    def leave(thread):
        with lock:
            active.pop(thread, None)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def task():
        thread = threading.get_ident()
        try:
            with lock:
                active[thread] = True
            for _ in range(50):
                host.ask()
                answer = Answer()
                late.put((random.random() * LONG, answer))
                host.ask(answer)
            leave(thread)
        except Interrupted:
            active[thread] = False
            struck.append(thread)
            leave(thread)

    late = queue.SimpleQueue()

    def answer_late():
        while (told := late.get()) is not None:
            time.sleep(told[0])
            host.messages.put(told[1])

    answering = threading.Thread(target=answer_late)
    answering.start()
    for together in (1, 2, 1, 12, 1) * 5:
        host.run(*[task] * together)
    assert struck
    late.put(None)
    answering.join()
    host.end()


@pytest.mark.parametrize("fault", [EOFError(), ValueError("a broken frame")])
def test_the_end_comes_through_to_a_task_that_reads_for_itself(fault):
    host = Host()
    news = Answer().news
    over = threading.Event()

    def task():
        while not over.is_set():
            host.workers.wait(news, 0.05)

    threading.Thread(target=host.run, args=(task,), daemon=True).start()
    time.sleep(LONG)
    host.messages.put(fault)
    host.server.join(10)
    over.set()
    assert not host.server.is_alive()
    assert isinstance(host.fault, ValueError) is isinstance(fault, ValueError)
