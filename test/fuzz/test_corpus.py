"""Every committed input, seed, attack or find, through its decoder: a valid result or a refusal, nothing else."""

import contextlib
import json
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hostile.attempt import ACCEPTED, DEFECT, REFUSED, attempt
from hostile.table import DECODERS, decoder

CORPUS = Path(__file__).parent / "corpus"
LARGEST_PEAK = 24 << 20
"""Bytes a decoder may take, for inputs of some kilobytes and a limit of 65,536 voxels."""


def inputs(name: str, kind: str = "") -> list[Path]:
    return sorted(path for path in (CORPUS / name).iterdir() if path.name.startswith(kind))


@pytest.fixture(scope="module", params=DECODERS)
def warm(request):
    """A decoder that has imported what it imports on first use."""
    found = decoder(request.param)
    for path in inputs(found.name, "seed"):
        with contextlib.suppress(*found.refusals):
            found.decode(found.prepare(path.read_bytes()))
    return found


def test_every_input_is_decoded_or_refused_within_bounds(warm):
    for path in inputs(warm.name):
        tracemalloc.start()
        verdict = attempt(warm, path.read_bytes())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert verdict.kind != DEFECT, f"{path.name}: {verdict.reason}\n{verdict.detail}"
        assert peak < LARGEST_PEAK, f"{path.name}: {peak} bytes"


def test_a_seed_is_accepted_and_every_attack_is_refused(warm):
    assert ACCEPTED in {attempt(warm, path.read_bytes()).kind for path in inputs(warm.name, "seed")}
    for path in inputs(warm.name, "attack"):
        assert attempt(warm, path.read_bytes()).kind == REFUSED, path.name


def test_every_byte_of_a_seed_is_a_place_to_cut_it_off(warm):
    seed = min((path.read_bytes() for path in inputs(warm.name, "seed")), key=len)
    for end in range(0, len(seed), 1 + len(seed) // 200):
        verdict = attempt(warm, seed[:end])
        assert verdict.kind != DEFECT, f"{end} bytes: {verdict.reason}\n{verdict.detail}"


def test_the_corpus_is_small():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 400_000


def test_a_short_campaign_runs_and_is_summed_up(tmp_path):
    command = [sys.executable, str(Path(__file__).parent / "run.py"), "--engine", "random", "--executions", "150"]
    command += ["--only", "nifti", "igtl", "--output", str(tmp_path / "fuzz.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "fuzz.json").read_text())
    assert summary["total"]["executions"] == 150
    assert summary["total"]["crashes"] == 0
    rows = summary["decoders"].values()
    assert all(row["accepted"] + sum(row["refused"].values()) == row["executions"] > 0 for row in rows)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # the limit was its own


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_are_the_same_in_every_run(name):
    assert decoder(name).seeds() == decoder(name).seeds()
