"""The demo's output folder: overlay.png, anatomy.png, report.html (one file, pictures inside) and summary.json."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path

from threedme_ros.anatomy import Anatomy
from threedme_ros.pictures.figure import CAVEAT, overlay_figure, spoken
from threedme_ros.pictures.results import DemoResults, summary
from threedme_ros.pictures.scene import anatomy_figure

OVERLAY, ANATOMY, PAGE, SUMMARY = "overlay.png", "anatomy.png", "report.html", "summary.json"

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


def write_report(out_dir: str | Path, results: DemoResults) -> Path:
    """Write the four files into ``out_dir`` (made if missing) and return the page's path.

    Raises ValueError when the run brought neither a mesh nor a point.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    figures = summary(results)
    overlay_figure(
        out / OVERLAY, results.image, results.labels, results.anatomy,
        title="3DME on ROS 2  ·  labels as received", subtitle=results.source,
    )  # fmt: skip
    anatomy_figure(
        out / ANATOMY, results.meshes, results.cloud, results.anatomy,
        title="3DME on ROS 2  ·  anatomy as received", subtitle=results.source,
    )  # fmt: skip
    (out / SUMMARY).write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    page = out / PAGE
    page.write_text(_page(figures, results, out))
    return page


def _page(figures: dict, results: DemoResults, out: Path) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in results.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>threedme_ros demo</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>From a volume topic to anatomy in the patient frame</h1>
<p>{escape(results.source)}</p>
<p class="caveat">{CAVEAT}.</p>
{_facts(figures)}
<h2>Labels</h2>
{_picture(out / OVERLAY, "axial, coronal and sagittal planes with labels")}
<h2>Meshes and point cloud</h2>
{_picture(out / ANATOMY, "meshes from the front and from behind, and the point cloud")}
<h2>Structures</h2>
{_structures(figures["structures"], results.anatomy)}
{_evaluations(figures["evaluations"])}
{notes}
<p>Checkpoint: {escape(results.checkpoint)}.</p>
</main>
</body>
</html>
"""


def _facts(figures: dict) -> str:
    times = figures["stamp_to_publish_ms"]
    facts = (
        ("mean Dice", _number(figures["mean_dice"], 3)),
        ("stamp to publish, p50", _number(times["p50"], 0, " ms")),
        ("stamp to publish, p95", _number(times["p95"], 0, " ms")),
        ("volumes published", str(figures["volumes_published"])),
        ("segmented", str(figures["volumes_segmented"])),
        ("refused", str(figures["volumes_refused"])),
        ("engine", figures["engine"]),
    )
    return '<dl class="facts">' + "".join(f"<div><dt>{n}</dt><dd>{escape(v)}</dd></div>" for n, v in facts) + "</dl>"


def _picture(path: Path, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


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
