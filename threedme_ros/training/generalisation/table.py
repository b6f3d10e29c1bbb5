"""The figures as Markdown: one row a network, and a list a volume with every structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from threedme_ros.training.experiments.table import Spread, markdown

from .figures import MR_CASE, SHIPPED_PATIENTS, THORAX_CASE, Figures, mean_of, of_run, of_shipped, taught
from .runs import OTHER, OURS, PATIENTS, Run

TITLES = {OURS: "3DME small", "dynunet": "DynUNet", "swinunetr": "SwinUNETR-24", "segresnet": "SegResNet-16"}
SHIPPED = "3DME small, as shipped (A and B)"
COLUMNS: tuple[tuple[str, Callable[[Figures], float | None], int], ...] = (
    ("training patient", lambda f: f.own, 3),
    ("patient left out", lambda f: f.unseen, 3),
    ("of these, structures taught", lambda f: f.unseen_taught, 3),
    ("MR slab D", lambda f: f.mr, 3),
    ("left out and MR, mean", lambda f: f.both, 3),
    ("thorax CT C, aorta", lambda f: f.aorta, 3),
    ("robustness", lambda f: f.robustness, 3),
    ("CPU s a volume", lambda f: f.seconds, 2),
)
NONE = "-"

Results = Mapping[Run, tuple[Mapping, Mapping]]
"""Run -> what its training and its evaluation gave."""


def summary(results: Results, shipped: Mapping | None) -> str:
    """One row a network: the mean over A -> B and B -> A; over seeds, (lowest to highest).

    A network of which one direction or seed is missing has no row. shipped: see `of_shipped`.
    """
    rows = []
    for model in dict.fromkeys(run.model for run in results):
        seeds = _whole_seeds(results, model)
        if not seeds:
            continue
        figures = [mean_of([of_run(run, results[run][1]) for run in seed]) for seed in seeds]
        parameters = results[seeds[0][0]][0]["parameters_m"]
        cells = [_cell([get(f) for f in figures], digits) for _, get, digits in COLUMNS]
        rows.append([TITLES[model], f"{parameters:.1f}", *cells])
    if shipped is not None:
        figures = of_shipped(shipped)
        rows.append([SHIPPED, f"{shipped['parameters_m']:.1f}", *(_cell([get(figures)], n) for _, get, n in COLUMNS)])
    return markdown(["network", "parameters, M", *(title for title, _, _ in COLUMNS)], rows)


def _whole_seeds(results: Results, model: str) -> list[list[Run]]:
    """The runs of ``model``, seed by seed, both directions each."""
    seeds = dict.fromkeys(run.seed for run in results if run.model == model)
    pairs = [[Run(model, seed, patient) for patient in PATIENTS] for seed in seeds]
    return [pair for pair in pairs if all(run in results for run in pair)]


def _cell(values: Sequence[float | None], digits: int) -> str:
    return NONE if None in values else Spread.of(values).text(digits)


def structures(results: Results, shipped: Mapping | None) -> str:
    """For every direction, and for D and C: each structure that the truth shows, and its Dice by network."""
    parts = []
    for patient in PATIENTS:
        mine = {run: found for run, found in results.items() if run.patient == patient}
        if not mine:
            continue
        run, (_, found) = next(iter(mine.items()))
        known = taught(run, found)
        parts.append(f"### Trained on {patient}, tried on {OTHER[patient]}\n")
        parts.append(_structure_table(mine, OTHER[patient], None, lambda n, known=known: "yes" if n in known else "no"))
        for case, text in ((MR_CASE, "the MR slab D"), (THORAX_CASE, "the thorax CT C"), (patient, "itself")):
            parts.append(f"### Trained on {patient}, tried on {text}\n")
            parts.append(_structure_table(mine, case, None))
    if shipped is not None:
        for case in (MR_CASE, THORAX_CASE, *SHIPPED_PATIENTS):
            parts.append(f"### The shipped checkpoint (A and B), tried on {case}\n")
            parts.append(_structure_table({}, case, shipped))
    return "\n".join(parts)


def _structure_table(
    results: Results, case: str, shipped: Mapping | None, known: Callable[[str], str] | None = None
) -> str:
    columns: dict[str, list[Mapping]] = {}
    for run, (_, found) in results.items():
        columns.setdefault(TITLES[run.model], []).append(found["dice"][case])
    if shipped is not None:
        columns[SHIPPED] = [shipped["dice"][case]]
    names = list(next(iter(columns.values()))[0])
    header = ["structure", *(["taught"] if known else []), *columns]
    rows = [
        [name, *([known(name)] if known else []), *(Spread.of([d[name] for d in c]).text(3) for c in columns.values())]
        for name in names
    ]
    means = (Spread.of([fmean(d.values()) for d in c]).text(3) for c in columns.values())
    rows.append(["**mean**", *([""] if known else []), *means])
    return markdown(header, rows)


def trainings(results: Results) -> str:
    """How much each run did, and where it stood on its synthesised validation windows when it ended."""
    header = ["run", "steps", "minutes on the clock", "minutes of wall clock", "waited for data", "loss", "synthesised"]
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
        for run, (trained, _) in results.items()
    ]
    return markdown(header, rows)
