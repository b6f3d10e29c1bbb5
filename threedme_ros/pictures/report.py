"""The demo's output folder: overlay.png, anatomy.png, report.html (one file, pictures inside) and summary.json.

With a planning result also planning.png and planning.json.
"""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path

from threedme_ros.anatomy import Anatomy
from threedme_ros.pictures.figure import CAVEAT, overlay_figure, spoken
from threedme_ros.pictures.interactive import STYLE as STYLE_3D
from threedme_ros.pictures.interactive import Body, anatomy_bodies, interactive_view
from threedme_ros.pictures.planning import planning_bodies, planning_figure
from threedme_ros.pictures.results import DemoResults, summary
from threedme_ros.pictures.scene import anatomy_figure
from threedme_ros.planning.demo import Attempt, PlanningResults, figures

OVERLAY, ANATOMY, PAGE, SUMMARY = "overlay.png", "anatomy.png", "report.html", "summary.json"
PLANNING, PLANNING_FIGURES = "planning.png", "planning.json"

STYLE = """
:root { color-scheme: dark; }
body { margin: 0; background: #0b0e14; color: #e8edf5; font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 44px 0 14px; }
p { margin: 6px 0; color: #a9b4c4; max-width: 85ch; }
.caveat { display: inline-block; margin: 14px 0 0; padding: 6px 12px; border-radius: 6px; background: #3a2a12;
  color: #ffcf7d; font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 26px 0 0; padding: 0; }
.facts div { background: #141924; border: 1px solid #232b3a; border-radius: 10px; padding: 12px 16px;
  min-width: 120px; }
.facts dt { color: #8b96a8; font-size: 13px; } .facts dd { margin: 2px 0 0; font-size: 20px; font-weight: 600; }
img { width: 100%; border-radius: 10px; border: 1px solid #232b3a; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid #1d2432; }
th { color: #8b96a8; font-weight: 500; font-size: 14px; } th:first-child, td:first-child { text-align: left; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 50%; margin-right: 10px; }
.bar { display: inline-block; height: 8px; border-radius: 4px; background: #57c785; margin-right: 10px; }
"""


def write_report(out_dir: str | Path, results: DemoResults, planning: PlanningResults | None = None) -> Path:
    """Write the files into ``out_dir`` (made if missing) and return the page's path.

    Raises ValueError when the run brought neither a mesh nor a point.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    numbers = summary(results)
    overlay_figure(
        out / OVERLAY, results.image, results.labels, results.anatomy,
        title="3DME on ROS 2  ·  labels as received", subtitle=results.source,
    )  # fmt: skip
    anatomy_figure(
        out / ANATOMY, results.meshes, results.cloud, results.anatomy,
        title="3DME on ROS 2  ·  anatomy as received", subtitle=results.source,
    )  # fmt: skip
    (out / SUMMARY).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    if planning is not None:
        planning_figure(
            out / PLANNING, planning, title="3DME on ROS 2  ·  planned around the published meshes",
            subtitle=results.source,
        )  # fmt: skip
        (out / PLANNING_FIGURES).write_text(json.dumps(figures(planning), indent=2, allow_nan=False) + "\n")
    page = out / PAGE
    page.write_text(_page(numbers, results, planning, out))
    return page


def _page(numbers: dict, results: DemoResults, planning: PlanningResults | None, out: Path) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in results.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>threedme_ros demo</title>
<style>{STYLE}{STYLE_3D}</style>
</head>
<body>
<main>
<h1>From a volume topic to anatomy in the patient frame</h1>
<p>{escape(results.source)}</p>
<p class="caveat">{CAVEAT}.</p>
{_facts(numbers)}
<h2>Labels</h2>
{_picture(out / OVERLAY, "axial, coronal and sagittal planes with labels")}
{_interactive(results, planning)}
<h2>Meshes and point cloud</h2>
{_picture(out / ANATOMY, "meshes from the front and from behind, and the point cloud")}
{_planning(planning, out)}
<h2>Structures</h2>
{_structures(numbers["structures"], results.anatomy)}
{_evaluations(numbers["evaluations"])}
{notes}
<p>Checkpoint: {escape(results.checkpoint)}.</p>
</main>
</body>
</html>
"""


def _facts(numbers: dict) -> str:
    times = numbers["stamp_to_publish_ms"]
    facts = (
        ("mean Dice", _number(numbers["mean_dice"], 3)),
        ("stamp to publish, p50", _number(times["p50"], 0, " ms")),
        ("stamp to publish, p95", _number(times["p95"], 0, " ms")),
        ("volumes published", str(numbers["volumes_published"])),
        ("segmented", str(numbers["volumes_segmented"])),
        ("refused", str(numbers["volumes_refused"])),
        ("engine", numbers["engine"]),
    )
    return '<dl class="facts">' + "".join(f"<div><dt>{n}</dt><dd>{escape(v)}</dd></div>" for n, v in facts) + "</dl>"


def _picture(path: Path, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _interactive(results: DemoResults, planning: PlanningResults | None) -> str:
    bodies = anatomy_bodies(results.meshes, results.anatomy)
    if planning is not None:
        bodies += planning_bodies(planning)
    if results.obstacles is not None and len(results.obstacles):
        bodies.append(
            Body("margins", results.obstacles, None, (150, 200, 255), 0.5, note="anatomy/obstacles", shown=False)
        )
    return f"<h2>The same, to turn</h2>{interactive_view(bodies)}" if bodies else ""


def _planning(planning: PlanningResults | None, out: Path) -> str:
    if planning is None:
        return ""
    rows = "".join(map(_way, planning.attempts))
    head = "<tr><th>way</th><th>length, mm</th><th>nearest no-go structure</th><th>clearance, mm</th></tr>"
    return f"""<h2>A planner in the loop</h2>
<p>A rigid tool from the skin to a target, planned by OMPL and Coal around the meshes above, with the label table's
margins, without them, and without any anatomy. Clearances are measured by VTK, independently of the planner.</p>
{_picture(out / PLANNING, "ways of a tool around the anatomy, and its clearances")}
<table><thead>{head}</thead><tbody>{rows}</tbody></table>"""


def _way(attempt: Attempt) -> str:
    nearest = min(attempt.clearance_mm, key=lambda name: attempt.clearance_mm[name])
    if attempt.poses is None:
        return f'<tr><td>{escape(attempt.name)}</td><td colspan="3">{escape(attempt.reason)}</td></tr>'
    return (
        f"<tr><td>{escape(attempt.name)}</td><td>{attempt.length_mm:.0f}</td><td>{spoken(nearest)}</td>"
        f"<td>{attempt.clearance_mm[nearest]:.1f}</td></tr>"
    )


def _structures(rows: list[dict], anatomy: Anatomy) -> str:
    body = []
    for row in rows:
        structure = anatomy[row["name"]]
        dice = row["dice"]
        bar = "" if dice is None else f'<span class="bar" style="width:{round(90 * dice)}px"></span>'
        swatch = f'<span class="swatch" style="background:rgb{structure.colour}"></span>'
        body.append(
            f"<tr><td>{swatch}{spoken(structure.name)}</td>"
            f"<td>{structure.role}</td><td>{structure.margin_mm:g}</td><td>{row['volume_ml']:.1f}</td>"
            f"<td>{row['points']:,}</td><td>{bar}{_number(dice, 3)}</td></tr>"
        )
    head = "<tr><th>structure</th><th>role</th><th>margin, mm</th><th>volume, ml</th><th>points</th><th>Dice</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _evaluations(rows: list[dict]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{escape(row['name'])}</td><td>{escape(row['note'])}</td><td>{_number(row['mean_dice'], 3)}</td></tr>"
        for row in rows
    )
    head = "<tr><th>case</th><th>what it is to the checkpoint</th><th>mean Dice</th></tr>"
    return f"<h2>The same checkpoint elsewhere</h2><table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "n/a" if value is None else f"{value:.{digits}f}{unit}"
