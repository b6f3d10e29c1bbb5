"""The guard itself: each kind of misbehaviour is noticed, also where the decoder swallows the exception."""

import importlib
import pickle
import random
import resource
import socket
import subprocess
import warnings
from pathlib import Path

import pytest
from hostile.attempt import DEFECT, attempt
from hostile.decoder import Decoder
from hostile.guard import peak_bytes
from hostile.mutation import MAX_BYTES, mutate_bytes, text_mutator
from hostile.seeds import SECRET
from hostile.table import DECODERS, decoder


class RefusedError(ValueError):
    pass


def verdict_of(decode, seconds: float = 5.0):
    fake = Decoder("fake", decode, (RefusedError,), lambda result: None, mutate_bytes, list)
    return attempt(fake, b"input", seconds)


def opens(data):
    Path("/etc/passwd").read_bytes()


def opens_and_hides_it(data):
    try:
        opens(data)
    except BaseException:
        raise RefusedError("nothing happened") from None


def unpickles(data):
    pickle.loads(pickle.dumps(importlib.import_module))


def runs_a_process(data):
    subprocess.run(["true"], check=True)


def evaluates(data):
    eval("1 + 1")


def connects(data):
    socket.create_connection(("127.0.0.1", 9), 0.1)


def warns(data):
    warnings.warn("the patient is called so", stacklevel=1)


def refuses_in_two_lines(data):
    raise RefusedError("one\ntwo")


def refuses_at_length(data):
    raise RefusedError("a" * 5000)


def refuses_with_the_patient(data):
    raise RefusedError(f"PatientName {SECRET}")


def hangs(data):
    while True:
        pass


@pytest.mark.parametrize(
    ("decode", "reason"),
    [
        (opens, "forbidden open '/etc/passwd'"),
        (opens_and_hides_it, "forbidden open '/etc/passwd'"),
        (unpickles, "forbidden pickle.find_class"),
        (runs_a_process, "forbidden"),
        (evaluates, "forbidden exec"),
        (connects, "forbidden socket"),
        (warns, "UserWarning"),
        (lambda data: 1 / 0, "ZeroDivisionError"),
        (refuses_in_two_lines, "several lines"),
        (refuses_at_length, "too long"),
        (refuses_with_the_patient, "quotes the patient"),
    ],
)
def test_misbehaviour_is_a_defect(decode, reason):
    verdict = verdict_of(decode)
    assert verdict.kind == DEFECT and reason in verdict.reason


def test_taking_memory_is_a_defect():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    size = peak_bytes() - resident + (200 << 20)  # more than other tests of this process ever took
    verdict = verdict_of(lambda data: len(b"\1" * size))
    assert verdict.kind == DEFECT and "memory, " in verdict.reason


def test_a_hang_is_ended_and_a_defect():
    verdict = verdict_of(hangs, seconds=0.05)
    assert verdict.kind == DEFECT and "Hang" in verdict.reason


def test_after_an_attempt_nothing_is_forbidden_any_more():
    verdict_of(opens)
    assert Path("/etc/passwd").read_bytes()


@pytest.mark.parametrize("name", DECODERS)
def test_mutation_repeats_with_the_seed_changes_something_and_stays_small(name):
    chosen = decoder(name)
    seed = chosen.seeds()[0]
    once, again = ([chosen.mutate(seed, random.Random(n)) for n in range(25)] for _ in range(2))
    assert once == again
    assert sum(data != seed for data in once) > 15
    assert all(len(data) <= MAX_BYTES for data in once)


def test_text_mutation_survives_what_is_no_text():
    mutate = text_mutator(("word",))
    assert all(isinstance(mutate(b"\xff\xfe\0", random.Random(n)), bytes) for n in range(200))
