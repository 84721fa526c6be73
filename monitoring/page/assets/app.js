// Keeps up with the aggregator by server-sent events, and draws at most once a frame.
import { Curve } from "/fleet/charts.js";
import * as panels from "/fleet/panels.js";
import { clock, fine, percent, span } from "/fleet/words.js";

const QUIET_MS = 8000;
const AGAIN_MS = 5000;
const KEEP = 1500;

const $ = (id) => document.getElementById(id);
const seen = { now: null, points: [], scores: [], marks: [], at: 0, events: 0 };
let source = null;
let asked = false;

const accuracy = new Curve($("plot-accuracy"), {
  fit: 0.9, high: 1, format: (v) => `${Math.round(100 * v)} %`, empty: "no evaluation yet",
  words: ([, v], t) => `${percent(v)} after ${span(t)}`,
});
const loss = new Curve($("plot-loss"), {
  low: 0, second: true, bare: true, format: (v) => fine(v).replace(/\.?0+$/, "") || "0", empty: "no evaluation yet",
  words: ([, v], t) => `loss ${v.toFixed(3)} after ${span(t)}`,
});
const rate = new Curve($("plot-rate"), { low: 0, spark: true });
const version = new Curve($("plot-version"), { spark: true });
const stale = new Curve($("plot-stale"), { low: 0, spark: true });

// Every second row goes when there are too many: the whole run stays in view.
function thin(rows) {
  return rows.length > KEEP ? rows.filter((_, i) => i % 2 === 0) : rows;
}

function whole(event) {
  const { now, points, scores } = JSON.parse(event.data);
  const before = seen.now;
  const same = before && before.task === now.task;
  const older = (rows, first) => (same ? rows.filter(([t]) => t < first) : []);
  if (same && before.instance !== now.instance) seen.marks.push(now.started_s);
  seen.points = older(seen.points, points[0]?.[0] ?? now.now_s).concat(points);
  seen.scores = older(seen.scores, scores[0]?.[0] ?? Infinity).concat(scores);
  take(now);
}

function tick(event) {
  const { now, point, score } = JSON.parse(event.data);
  if (point) seen.points = thin([...seen.points, point]);
  if (score) seen.scores = thin([...seen.scores, score]);
  take(now);
}

function take(now) {
  seen.now = now;
  seen.at = performance.now();
  seen.events += 1;
  document.body.dataset.events = seen.events;
  document.body.dataset.link = "live";
  if (!asked) {
    asked = true;
    requestAnimationFrame(draw);
  }
}

function draw() {
  asked = false;
  const { now, points, scores, marks } = seen;
  panels.state(now);
  panels.scores(scores, now);
  panels.tiles(now);
  panels.vitals(now);
  panels.chain(now.chain, now.now_s);
  panels.stale(now.staleness);
  panels.slow(now.devices.slowest);
  panels.refused(now.updates);
  const from = Math.min(points[0]?.[0] ?? now.now_s, scores[0]?.[0] ?? now.now_s);
  const range = [from, Math.max(now.now_s, from + 30)];
  accuracy.show([scores.map(([t, , v]) => [t, v])], marks, range);
  loss.show([scores.map(([t, , , v]) => [t, v])], marks, range);
  const last = points.slice(-120);
  version.show([last.map(([t, v]) => [t, v])]);
  rate.show([last.map(([t, , v]) => [t, v])]);
  stale.show([last.map(([t, , , v]) => [t, v]), last.map(([t, , , , v]) => [t, v])]);
  $("live-text").textContent = `live · ${clock(now.now_s)}`;
  $("since").textContent = `Counts are of this process, started ${clock(now.started_s)}; the chain is the whole task's.`;
}

function lost() {
  document.body.dataset.link = "lost";
  const quiet = seen.at ? (performance.now() - seen.at) / 1000 : null;
  $("live-text").textContent = quiet === null ? "no aggregator answers" : `no signal for ${span(quiet)}`;
  $("state").dataset.level = "bad";
  $("sign").textContent = "✕";
  $("word").textContent = "No signal";
  $("sentence").textContent = "The aggregator does not answer; this page tries again by itself. Devices train on, and nothing is lost.";
}

function connect() {
  source?.close();
  source = new EventSource("/fleet/events");
  source.addEventListener("whole", whole);
  source.addEventListener("tick", tick);
  source.addEventListener("error", lost);
}

setInterval(() => {
  const quiet = performance.now() - seen.at;
  if (quiet > QUIET_MS) lost();
  // A browser gives up for good on an answer that is no stream, as from a full house.
  if (source.readyState === EventSource.CLOSED || quiet > QUIET_MS + 2 * AGAIN_MS) connect();
}, AGAIN_MS);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && source.readyState === EventSource.CLOSED) connect();
});
connect();
