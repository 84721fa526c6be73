// Each panel is a function of the newest state; app.js decides when to draw.
import { fingerprint } from "/fleet/charts.js";
import { NONE, ago, bytes, clock, count, fine, known, one, percent, span } from "/fleet/words.js";

const $ = (id) => document.getElementById(id);
const SIGNS = { good: "✓", idle: "○", warn: "!", bad: "✕" };

function put(id, text) {
  const node = $(id);
  if (node.textContent !== text) node.textContent = text;
}

function node(name, { cls, text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function state({ verdict, task }) {
  document.title = `${verdict.word} · ${task} · Headwater`;
  put("task", task);
  $("state").dataset.level = verdict.level;
  put("sign", SIGNS[verdict.level]);
  put("word", verdict.word);
  put("sentence", verdict.sentence);
}

export function scores(rows, now) {
  const last = rows.at(-1);
  if (!last) return;
  const [at, version, accuracy, loss] = last;
  put("accuracy", percent(accuracy));
  put("best", percent(Math.max(...rows.map((row) => row[2] ?? 0))));
  put("loss", known(loss) ? loss.toFixed(3) : NONE);
  put("scored", `version ${count(version)}, ${ago(now.now_s - at)}`);
  put("say-accuracy", `Curve of ${rows.length} evaluations, from ${percent(rows[0][2])} to ${percent(accuracy)}.`);
  put("say-loss", known(loss) ? `Held-out loss is ${loss.toFixed(3)}.` : "No loss is reported.");
}

export function tiles(now) {
  const { model, updates, staleness, devices } = now;
  put("version", count(model.version));
  put("version-under", `${known(model.published_s) ? `made ${ago(now.now_s - model.published_s)}` : "not yet made here"} · ${count(model.parameters)} parameters`);
  put("say-version", `Version ${count(model.version)}.`);
  $("rate").replaceChildren(fine(updates.per_s), node("small", { text: " / s" }));
  put("rate-under", `${count(now.passed)} decided since the task began · ${count(devices.active)} devices heard in 5 min`);
  put("say-rate", `${fine(updates.per_s)} updates a second.`);
  const recent = staleness.recent;
  $("stale").replaceChildren(recent ? count(recent.median) : NONE, node("small", { text: recent ? " median" : "" }));
  put("stale-under", recent ? `versions; 95 % within ${count(recent.p95)}, largest ${count(recent.largest)}` : "no update yet");
  put("say-stale", recent ? `Median ${recent.median}, 95th percentile ${recent.p95} versions.` : "");
  const factor = updates.bytes ? updates.float32_bytes / updates.bytes : 0;
  put("bytes", factor ? `${count(factor)}×` : NONE);
  $("bytes-share").style.width = factor ? `${Math.min(100, 100 / factor)}%` : "0";
  put("bytes-under", factor ? `${bytes(updates.bytes)} sent instead of ${bytes(updates.float32_bytes)} of float32` : "no update yet");
}

function sign(name, value, level, meaning) {
  const mark = node("span", { cls: "sign", text: SIGNS[level], role: "img", "aria-label": meaning });
  return node("div", { "data-level": level }, node("dt", { text: name }), node("dd", {}, mark, value));
}

export function vitals({ log, now_s, model }) {
  const age = known(log.keyframe_s) ? now_s - log.keyframe_s : null;
  const lag = log.lag > 1000 ? "warn" : "good";
  const room = !known(log.headroom_s) ? "idle" : log.headroom_s < 86400 / 4 ? "bad" : "good";
  const loop = log.loop_s > 5 ? "bad" : log.loop_s > 1 ? "warn" : "good";
  $("vitals").replaceChildren(
    sign("waiting in the log", `${count(log.lag)} updates`, lag, lag === "good" ? "fine" : "look"),
    sign("in the buffer", `${count(log.buffer)} updates`, "good", "fine"),
    sign("retention head-room", known(log.headroom_s) ? span(log.headroom_s) : "unlimited", room, room === "bad" ? "low" : "fine"),
    sign("newest keyframe", age === null ? "none yet" : ago(age), age === null ? "idle" : "good", age === null ? "unknown" : "fine"),
    sign("event loop", loop === "good" ? "responsive" : `still for ${span(log.loop_s)}`, loop, loop === "good" ? "fine" : "blocked"),
    sign("chain height", count(model.height), "good", "fine"),
  );
}

let drawnHead = "";

export function chain(links, now_s) {
  if (!links.length) return;
  const fresh = drawnHead && drawnHead !== links[0].hash;
  put("head", links[0].hash);
  if (drawnHead !== links[0].hash) {
    const seen = links.findIndex((link) => link.hash === drawnHead);
    $("links").replaceChildren(...links.map((link, i) => bead(link, fresh && (seen < 0 || i < seen))));
  }
  drawnHead = links[0].hash;
  links.forEach((link, i) => {
    const age = $("links").children[i].querySelector(".age");
    age.textContent = span(now_s - link.at_s);
  });
}

function bead(link, isNew) {
  const what = link.keyframe ? node("span", { cls: "key", text: "◆ keyframe" }) : node("span", { text: link.cause });
  const inputs = link.refused ? `${link.accepted} in, ${link.refused} refused` : `${link.accepted} update${link.accepted === 1 ? "" : "s"}`;
  return node(
    "li",
    { cls: isNew ? "new" : "", title: `record ${link.height}\n${link.hash}\nparent ${link.parent}\n${clock(link.at_s)}` },
    node("p", {}, node("b", { text: `v${link.version}` }), node("span", { cls: "under", text: `#${link.height}` })),
    fingerprint(link.hash),
    node("code", { text: link.hash.slice(0, 16) }),
    node("p", {}, node("span", { text: inputs })),
    node("p", { cls: "under" }, what, node("span", { cls: "age" })),
  );
}

function bars(id, rows) {
  const most = Math.max(1, ...rows.map(([, value]) => value));
  const body = $(id);
  while (body.children.length > rows.length) body.lastChild.remove();
  rows.forEach(([name, value], i) => {
    if (!body.children[i]) {
      body.append(node("tr", {}, node("th", { scope: "row" }), node("td", { cls: "bar-cell" }, node("span")), node("td")));
    }
    const [label, cell, number] = body.children[i].children;
    label.textContent = name;
    cell.firstChild.style.width = `${(100 * value) / most}%`;
    cell.firstChild.hidden = !value;
    number.textContent = count(value);
  });
}

export const stale = ({ bars: rows }) => bars("bars", rows);

export function refused({ codes, refused, applied }) {
  const rows = Object.entries(codes).sort(([, a], [, b]) => b - a);
  put("refused-under", refused ? `${count(refused)} of ${count(refused + applied)} updates (${percent(refused / (refused + applied))}), by reject code.` : `Of ${count(applied)} updates that this process decided on.`);
  if (rows.length) {
    $("refused").querySelector(".calm")?.closest("tr").remove();
    bars("refused", rows);
    return;
  }
  const calm = node("div", { cls: "calm" }, node("span", { cls: "sign", text: SIGNS.good, "aria-hidden": "true" }), "Nothing was refused.");
  $("refused").replaceChildren(node("tr", {}, node("td", {}, calm)));
}

export function slow(rows) {
  $("slow").replaceChildren(
    ...rows.map((row) =>
      node(
        "tr",
        {},
        node("td", { text: row.id, title: row.id }),
        node("td", { cls: "num", text: known(row.gap_s) ? span(row.gap_s) : NONE }),
        node("td", { cls: "num", text: span(row.silent_s) }),
        node("td", { cls: "num", text: row.refused ? `${count(row.updates)} (−${count(row.refused)})` : count(row.updates) }),
        node("td", { cls: "num", text: row.updates ? one(row.staleness) : NONE }),
      ),
    ),
  );
}
