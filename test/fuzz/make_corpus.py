"""Write the corpus: python test/fuzz/make_corpus.py

corpus/DECODER/NAME: every seed and every attack that is described here by hand, as the decoder would meet it. What
the fuzzer found once and was fixed is added by hand as corpus/DECODER/found-*; those files stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
LARGEST_SEED = 24_000
"""Bytes: the label tables of real tasks are longer and lie in config/ already."""


def main() -> None:
    sys.path.insert(0, str(HERE))
    from hostile.attacks import attacks
    from hostile.table import DECODERS, decoder

    for name in DECODERS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        files = {f"seed-{number}": data for number, data in enumerate(decoder(name).seeds())}
        files |= {f"attack-{what}": data for what, data in attacks(name).items()}
        for file, data in files.items():
            if len(data) <= LARGEST_SEED:
                (folder / file).write_bytes(data)


if __name__ == "__main__":
    main()
