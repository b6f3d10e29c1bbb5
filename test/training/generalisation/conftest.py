import pytest


@pytest.fixture
def found() -> dict:
    """What `evaluate` gives: two structures of A, of B another one too, which was missed."""
    return {
        "dice": {
            "A": {"liver": 0.8, "colon": 0.4},
            "B": {"liver": 0.6, "spleen": 0.0, "colon": 0.3},
            "C": {"aorta": 0.5},
            "D": {"liver": 0.2, "spleen": 0.0},
        },
        "robustness": {"A": 0.35, "B": 0.25},
        "seconds": 1.5,
    }
