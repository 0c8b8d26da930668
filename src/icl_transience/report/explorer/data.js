"use strict";
// What the page holds, and how it is looked up. See contents.py for its parts.

let DATA;

async function unpack() {
  const stream = new Blob([bytesOf(document.getElementById("data").textContent.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  DATA = JSON.parse(await new Response(stream).text());
  DATA.metrics = Object.keys(DATA.names.metrics);
  for (const experiment of DATA.experiments) {
    experiment.index = index(experiment.series, (s, i) => `${s.lane[i]} ${s.evaluator[i]} ${s.metric[i]}`);
    if (experiment.heads) {
      const key = (s, i) => `${s.lane[i]} ${s.evaluator[i]} ${s.measure[i]} ${s.head[i]}`;
      experiment.heads.index = index(experiment.heads.series, key);
    }
  }
}

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function index(series, key) {
  return new Map(series.lane.map((_, i) => [key(series, i), i]));
}

function experimentNamed(name) {
  return DATA.experiments.find((one) => one.name === name);
}

function metricOf(evaluator, metric) {
  return metric === "default" || evaluator === "training" ? DATA.names.evaluators[evaluator].metric : metric;
}

// A lane's curve, {xs, ys}; null where it has none. ys has null where the lane has no number.
function curve(experiment, lane, evaluator, metric) {
  const place = evaluator === "training" ? experiment.evaluators.length : experiment.evaluators.indexOf(evaluator);
  const series = experiment.series;
  const i = experiment.index.get(`${lane} ${place} ${DATA.metrics.indexOf(metricOf(evaluator, metric))}`);
  return i === undefined ? null : { xs: experiment.points[series.points[i]], ys: series.values[i] };
}

function headCurve(experiment, lane, evaluator, measure, head) {
  const heads = experiment.heads;
  const key = `${lane} ${heads.evaluators.indexOf(evaluator)} ${heads.measures.indexOf(measure)} ${head}`;
  const i = heads.index.get(key);
  return i === undefined ? null : { xs: experiment.points[heads.series.points[i]], ys: heads.series.values[i] };
}

// The mean over lanes that did not diverge, at the points that every lane has, and its interval where enough lanes
// are left; of the logarithm where `logarithmic`. As the figures do: report/figures/runs.py and lines.py.
function meanOf(curves, t, logarithmic) {
  const count = new Map();
  for (const one of curves) for (const x of one.xs) count.set(x, (count.get(x) || 0) + 1);
  const xs = [...count.keys()].filter((x) => count.get(x) === curves.length).sort((a, b) => a - b);
  const rows = curves.map((one) => {
    const at = new Map(one.xs.map((x, i) => [x, one.ys[i]]));
    return xs.map((x) => at.get(x));
  });
  const alive = rows.filter((row) => row.every((y) => y !== null));
  const n = alive.length;
  if (!n) return { xs: [], ys: [], n };
  const mean = (values) => values.reduce((a, b) => a + b, 0) / n;
  const ys = xs.map((_, i) => mean(alive.map((row) => row[i])));
  if (n < DATA.names.band_from) return { xs, ys, n };
  const low = [], high = [];
  xs.forEach((_, i) => {
    const values = alive.map((row) => (logarithmic ? Math.log(row[i]) : row[i]));
    const middle = mean(values);
    const half = (t[n] * Math.sqrt(values.reduce((sum, y) => sum + (y - middle) ** 2, 0) / (n - 1))) / Math.sqrt(n);
    low.push(logarithmic ? Math.exp(middle - half) : middle - half);
    high.push(logarithmic ? Math.exp(middle + half) : middle + half);
  });
  return { xs, ys, low, high, n };
}

// Numbers as text.

function count(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  return value.toFixed(0);
}

function number(value) {
  return value === null || value === undefined ? "–" : String(Number(value.toPrecision(DATA.digits)));
}
