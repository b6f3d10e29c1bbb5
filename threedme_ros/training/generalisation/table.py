"""The figures as Markdown: one row a network, and a list a volume with every structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from threedme_ros.training.experiments.table import Spread, markdown

from .figures import MR_CASE, SHIPPED_PATIENTS, THORAX_CASE, Figures, Results, mean_of, of_run, of_shipped, shown
from .runs import OTHER, OURS, PATIENTS, Run

TITLES = {OURS: "3DME small", "dynunet": "DynUNet", "swinunetr": "SwinUNETR-24", "segresnet": "SegResNet-16"}
SHIPPED = "3DME small, as shipped (trained on A and B)"
COLUMNS: tuple[tuple[str, Callable[[Figures], float | None], int], ...] = (
    ("training patient", lambda f: f.own, 3),
    ("patient left out", lambda f: f.unseen, 3),
    ("of it, what the training patient shows", lambda f: f.unseen_shown, 3),
    ("MR slab D", lambda f: f.mr, 3),
    ("left out and MR, mean", lambda f: f.both, 3),
    ("thorax CT C, aorta", lambda f: f.aorta, 3),
    ("robustness", lambda f: f.robustness, 3),
    ("CPU s a volume", lambda f: f.seconds, 2),
)
NONE = "-"
OTHERS = ((MR_CASE, "the MR slab D"), (THORAX_CASE, "the thorax CT C"))


def summary(results: Results, shipped: Mapping | None) -> str:
    """One row a network: the mean over A -> B and B -> A; over seeds, (lowest to highest).

    A network of which no seed has both directions has no row. shipped: see `of_shipped`.
    """
    rows = []
    for model in dict.fromkeys(run.model for run in results.found):
        seeds = _whole_seeds(results, model)
        if not seeds:
            continue
        figures = [mean_of([of_run(run, results.found[run]) for run in seed]) for seed in seeds]
        parameters = results.trained[seeds[0][0]]["parameters_m"]
        cells = [_cell([get(f) for f in figures], digits) for _, get, digits in COLUMNS]
        rows.append([TITLES[model], f"{parameters:.1f}", *cells])
    if shipped is not None:
        figures = of_shipped(shipped)
        rows.append([SHIPPED, f"{shipped['parameters_m']:.1f}", *(_cell([get(figures)], n) for _, get, n in COLUMNS)])
    return markdown(["network", "parameters, M", *(title for title, _, _ in COLUMNS)], rows)


def _whole_seeds(results: Results, model: str) -> list[list[Run]]:
    """The runs of ``model``, seed by seed, both directions each."""
    seeds = dict.fromkeys(run.seed for run in results.found if run.model == model)
    pairs = [[Run(model, seed, patient) for patient in PATIENTS] for seed in seeds]
    return [pair for pair in pairs if all(run in results.found for run in pair)]


def _cell(values: Sequence[float | None], digits: int) -> str:
    return NONE if None in values else Spread.of(values).text(digits)


def structures(results: Results, shipped: Mapping | None) -> str:
    """For each volume: every structure that its truth shows, and its Dice by network; over seeds, as above."""
    parts = []
    for patient in PATIENTS:
        columns: dict[str, list[Mapping]] = {}
        known: list[str] = []
        for run, found in results.found.items():
            if run.patient == patient:
                columns.setdefault(TITLES[run.model], []).append(found["dice"])
                known = shown(run, found)
        if not columns:
            continue
        for case, text in ((OTHER[patient], OTHER[patient]), *OTHERS, (patient, f"{patient} itself")):
            parts.append(f"### Trained on {patient}, tried on {text}\n")
            parts.append(_structure_table(columns, case, known if case == OTHER[patient] else None))
    if shipped is not None:
        columns = {SHIPPED: [shipped["dice"]]}
        for case, text in (*OTHERS, *((patient, f"patient {patient}") for patient in SHIPPED_PATIENTS)):
            parts.append(f"### The shipped checkpoint, tried on {text}\n")
            parts.append(_structure_table(columns, case, None))
    return "\n".join(parts)


def _structure_table(columns: Mapping[str, Sequence[Mapping]], case: str, known: Sequence[str] | None) -> str:
    """columns: network -> by seed, case -> structure -> Dice. known: structures that the training patient shows."""
    scores = {title: [dice[case] for dice in seeds] for title, seeds in columns.items()}
    rows = []
    for name in next(iter(scores.values()))[0]:
        marks = [] if known is None else ["yes" if name in known else "no"]
        rows.append([name, *marks, *(Spread.of([dice[name] for dice in seeds]).text(3) for seeds in scores.values())])
    means = (Spread.of([fmean(dice.values()) for dice in seeds]).text(3) for seeds in scores.values())
    rows.append(["**mean**", *([] if known is None else [""]), *means])
    return markdown(["structure", *([] if known is None else ["in the training patient"]), *scores], rows)


def trainings(results: Results) -> str:
    """How much each training did, and where it stood on its synthesised validation windows when it ended."""
    header = ["run", "steps", "minutes (clock)", "minutes (wall)", "of it waiting for data", "loss", "synthesised Dice"]
    rows = [
        [
            run.name,
            str(trained["step"]),
            f"{trained['minutes']:.1f}",
            f"{trained['wall_minutes']:.1f}",
            f"{trained['data_share']:.0%}",
            f"{trained['loss']:.3f}",
            f"{trained['synthetic_dice']:.3f}",
        ]
        for run, trained in results.trained.items()
    ]
    return markdown(header, rows)
