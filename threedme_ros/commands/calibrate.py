"""`threedme calibrate`: a trained checkpoint learns how sure it may be, and what it was not made for."""

from __future__ import annotations

import argparse
from pathlib import Path

BOTH = ("temperature", "scope")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a safetensors file; it is written anew, with another hash")
    parser.add_argument("--only", choices=BOTH, help="default: both, a few minutes on one core")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="training patients (default: the checkpoint's own)")
    parser.add_argument("--windows", type=int, help="synthesised windows of each modality (default: 64)")
    parser.add_argument("--inputs", type=int, help="inputs of each sort for the scope score (default: 90)")
    parser.add_argument("--trunks", type=int, help="procedural bodies for each of the two (default: 8)")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.samples import SampleError
    from threedme_ros.training.calibration import CalibrationConfig, calibrate
    from threedme_ros.training.evaluate import CASES
    from threedme_ros.training.sample_cases import load_training_cases
    from threedme_ros.training.scope_fit import ScopeConfig, fit_scope

    checkpoint = load_checkpoint(arguments.checkpoint)
    keys = arguments.cases or [name for name in checkpoint.provenance.get("data", ()) if name in CASES]
    if not keys:
        raise ValueError(f"{arguments.checkpoint}: its training patients are not among the samples: expected --cases")
    try:
        cases = load_training_cases(keys, checkpoint.anatomy, checkpoint.preprocessing)
    except SampleError as error:
        raise ValueError(str(error)) from error
    print(f"cases {', '.join(keys)}; checkpoint {checkpoint.hash}", flush=True)
    if arguments.only in (None, "temperature"):
        changes = _given(windows=arguments.windows, trunks=arguments.trunks)
        found = calibrate(arguments.checkpoint, cases, checkpoint.anatomy, CalibrationConfig(**changes))
        print(f"temperature {found.temperature:.3f}; calibration error on other synthesised windows,")
        print(
            "  over the body (where there are structures): as trained, with the temperature, with the lines, too",
            flush=True,
        )
        for modality, errors in found.ece.items():
            pairs = zip(errors, found.ece_structures[modality], strict=True)
            print(f"  {modality:6} " + ", ".join(f"{e:.3f} ({s:.3f})" for e, s in pairs), flush=True)
    if arguments.only in (None, "scope"):
        config = ScopeConfig(**_given(inputs=arguments.inputs, trunks=arguments.trunks))
        with tqdm(total=2 * config.inputs, unit="input", mininterval=5) as bar:
            stored = fit_scope(
                arguments.checkpoint, cases, checkpoint.anatomy, config, lambda done, total: bar.update()
            )
        print(f"scope: flagged below {stored['threshold']:g}. Flagged in cross-validation (kind unseen in the fit):")
        report = stored["fitted_on"]
        for kind, (flagged, of) in report["flagged"].items():
            unseen = report["flagged_unseen"].get(kind)
            print(f"  {kind:12} {flagged:3} of {of:3}" + (f"  ({unseen[0]} of {unseen[1]})" if unseen else ""))
    print(f"{arguments.checkpoint}: checkpoint {load_checkpoint(arguments.checkpoint).hash}")
    return 0


def _given(**options: int | None) -> dict[str, int]:
    return {name: value for name, value in options.items() if value is not None}
