"""The page that a report fills in: layout and colours, light and dark, without a script."""

from string import Template

PAGE = Template(
    """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root {
  --paper: #ffffff; --ink: #222831; --muted: #6b7480; --rule: #dfe3e8; --shade: #f4f6f9;
  --accent: #1860de; --bar: #d5e3fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #e6e9ee; --muted: #98a2b0; --rule: #2f353e; --shade: #1c2027;
    --accent: #79a8ff; --bar: #23395f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; padding-bottom: .35rem; }
h2 { border-bottom: 2px solid var(--rule); }
.note, .key, figcaption { color: var(--muted); }
.key { font-size: .86rem; }
.key span { white-space: nowrap; margin-left: .7rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .9rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child { text-align: left; font-weight: 500; padding-left: .5rem; }
thead th, thead th:first-child { color: var(--muted); font-weight: 600; font-size: .86rem; }
tbody tr:hover { background: var(--shade); }
.scores { width: 100%; }
.scores td.bar {
  background: linear-gradient(90deg, var(--bar) var(--share), transparent var(--share))
    no-repeat center / 100% 70%;
  font-weight: 600; min-width: 8rem;
}
.scores td.best { font-weight: 700; color: var(--accent); }
.columns { display: flex; flex-wrap: wrap; gap: 1.5rem 4rem; align-items: flex-start; }
.times { width: 100%; max-width: 46rem; }
.times td { white-space: nowrap; }
.times .meter { width: 50%; }
.times .meter i { display: block; height: .7rem; border-radius: 3px; }
.times .meter i { background: var(--accent); opacity: .75; }
.times .total th, .times .total td { font-weight: 700; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .4em; }
.scene { margin: 0 0 2.2rem; }
.scene input { position: absolute; opacity: 0; }
.scene label {
  display: inline-block; padding: .3rem .8rem; margin: 0 .3rem .5rem 0; border: 1px solid var(--rule);
  border-radius: 1rem; font-size: .88rem; cursor: pointer;
}
.scene input:checked + label { background: var(--accent); border-color: var(--accent); color: var(--paper); }
.scene input:focus-visible + label { outline: 3px solid var(--bar); }
.views img { display: none; width: 100%; height: auto; border-radius: 8px; border: 1px solid var(--rule); }
$tabs { display: block; }
figcaption { font-size: .84rem; margin-top: .4rem; }
@media print { .scene label { display: none; } .views img { display: block; margin-bottom: 1rem; } }
</style>
</head>
<body>
<h1>$title</h1>
$note
$body
</body>
</html>
"""
)
"""Takes ``title``, ``note``, ``tabs`` (selectors of the visible pictures) and ``body``."""
