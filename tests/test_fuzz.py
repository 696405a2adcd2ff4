"""Random model files, a thousand of them: none takes more than it may while onnxruntime loads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from random_models import random_model

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "fuzz_models.py"


def test_random_model_of_one_seed_is_the_same_file():
    assert [random_model(seed) for seed in range(5)] == [random_model(seed) for seed in range(5)]
    assert len({random_model(seed) for seed in range(20)}) == 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and limits of memory")
def test_a_thousand_random_models_load_within_the_bound():
    command = [sys.executable, str(SCRIPT), "--only-random", "--cases", "1000"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout
