// The live page: reads snapshots from /live and shows them. Whatever comes is text, never markup: textContent only.

import { Chart } from "./charts.js";

const SILENT_MS = 5000; // the worker says something each second
const STALE_MS = 3000;
const RETRY_FIRST_MS = 1000;
const RETRY_MOST_MS = 10000;
const HIDDEN_MS = 60000; // a page that nobody sees leaves its place to others

const at = (id) => document.getElementById(id);

// -- words for figures ---------------------------------------------------------------------------------

const round = (value, digits) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });

function count(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1e9) return `${round(value / 1e9, 3)} G`;
  if (Math.abs(value) >= 1e6) return `${round(value / 1e6, 3)} M`;
  if (Math.abs(value) >= 1e5) return `${round(value / 1e3, 3)} k`;
  return Math.abs(value) >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : round(value, 3);
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 0.001) return `${round(value * 1e6, 3)} µs`;
  if (value < 1) return `${round(value * 1000, 3)} ms`;
  if (value < 60) return `${round(value, 3)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${round(value / 86400, 3)} days`;
}

const share = (value) => (value === null || value === undefined ? "–" : `${round(value * 100, 3)} %`);
const per = (value) => (value === null || value === undefined ? "–" : `${count(value)}/s`);
const spread = (found, name, words) => {
  if (!found) return "–";
  return found[name] === null ? `> ${words(found.at_most)}` : words(found[name]);
};
const many = (value, one, several) => `${count(value)} ${value === 1 ? one : several}`;

// -- elements --------------------------------------------------------------------------------------------

function made(name, words, className) {
  const element = document.createElement(name);
  if (words !== undefined) element.textContent = words;
  if (className) element.className = className;
  return element;
}

const drawn = new Map();

// Only what has changed is drawn again, so that what is being read or copied stays.
function show(id, facts, draw) {
  const text = JSON.stringify(facts);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  at(id).replaceChildren(...draw(facts));
}

function say(id, words) {
  const element = at(id);
  if (element.textContent !== words) element.textContent = words;
}

// caption: what it is, and a note. columns: [heading, cell of a row, how]; the first is the row's heading.
// how: NUMBER, and ROOM for what is left out on a narrow screen.
const NUMBER = "number";
const ROOM = "room";

function table(caption, columns, rows) {
  const found = made("table");
  const [name, note] = caption;
  const heading = made("caption", name);
  if (note) heading.append(" ", made("small", note));
  found.append(heading);
  const head = made("tr");
  for (const [heading, , ...how] of columns) {
    const cell = made("th", heading, how.join(" "));
    cell.scope = "col";
    head.append(cell);
  }
  const body = made("tbody");
  for (const row of rows) {
    const line = made("tr");
    columns.forEach(([, cell, ...how], index) => {
      const shown = cell(row);
      const element = made(index ? "td" : "th", undefined, how.join(" "));
      if (!index) element.scope = "row";
      element.append(shown);
      line.append(element);
    });
    body.append(line);
  }
  const top = made("thead");
  top.append(head);
  found.append(top, body);
  return found;
}

function facts(pairs) {
  return pairs.flatMap(([name, words]) => [made("dt", name), made("dd", words)]);
}

// -- parts of the page -----------------------------------------------------------------------------------

const charts = {};

function setCharts() {
  charts.throughput = new Chart(at("chart-throughput"), "Records per second", ["predicted", "dead letters"], count);
  charts.latency = new Chart(at("chart-latency"), "End-to-end latency", ["p50", "p95", "p99"], seconds);
  charts.lag = new Chart(at("chart-lag"), "Lag, records", ["behind"], count);
  charts.age = new Chart(at("chart-age"), "Lag, age of the oldest unfinished record", ["age"], seconds);
}

function showCharts(now) {
  const known = (name) => (now.end_to_end ? now.end_to_end[name] ?? now.end_to_end.at_most : null);
  charts.throughput.add(now.at_ms, [now.throughput.per_s.predicted, now.throughput.per_s.dead_lettered]);
  charts.latency.add(now.at_ms, ["p50", "p95", "p99"].map(known));
  charts.lag.add(now.at_ms, [now.lag.records]);
  charts.age.add(now.at_ms, [now.lag.seconds]);
}

function showTiles(now) {
  const { throughput, lag, dead_letters: letters, end_to_end: latency } = now;
  const window = `last ${seconds(Math.round(now.window_s))}`;
  const tiles = [
    ["Throughput", per(throughput.records_per_s), `${count(throughput.total.predicted)} predicted`, ""],
    ["Lag, records", count(lag.records), `in ${many(lag.assigned, "partition", "partitions")}`, ""],
    ["Oldest unfinished", seconds(lag.seconds), "age of a record", ""],
    ["p99 end to end", spread(latency, "p99", seconds), `p50 ${spread(latency, "p50", seconds)}, ${window}`, ""],
    ["Dead letters", count(letters.in_window), `${window}; ${count(throughput.total.dead_lettered)} in all`,
      letters.in_window ? "bad" : ""],
    ["Busy", share(throughput.busy_ratio), `could do ${per(throughput.capacity_per_s || null)}`,
      throughput.busy_ratio > 0.95 ? "warn" : ""],
  ];
  show("tiles", tiles, () => tiles.map(([name, value, more, look]) => {
    const tile = made("div", undefined, look);
    const shown = made("dd");
    shown.append(made("span", value, "value"));
    tile.append(made("dt", name), shown, made("dd", more, "more"));
    return tile;
  }));
}

function pipelineCard(name) {
  const id = `pipeline-${name}`;
  if (at(id)) return id;
  const card = made("section", undefined, "card");
  card.id = id;
  const title = made("h2", `Pipeline ${name}`);
  title.id = `${id}-title`;
  card.setAttribute("aria-labelledby", title.id);
  card.append(title);
  for (const [part, label] of [["about", ""], ["times", `Latency of ${name}`], ["batches", ""], ["versions", `Versions of ${name}`]]) {
    const box = made("div", undefined, label ? "table" : "");
    box.id = `${id}-${part}`;
    if (label) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", label);
    }
    card.append(box);
  }
  at("pipelines").append(card);
  return id;
}

function showPipeline(pipeline, about, now) {
  const id = pipelineCard(pipeline.name);
  const where = `${about.inputs.join(", ")} → ${about.output}`;
  show(`${id}-about`, [where, about.group], () => [made("p", `${where}, group ${about.group}`, "muted")]);

  const window = `percentiles of the last ${seconds(Math.round(now.window_s))}`;
  const times = [
    ["end to end", "record", pipeline.end_to_end],
    ["wait in the batcher", "batch", pipeline.batch_wait],
    ...pipeline.versions.filter((one) => one.model_time).map((one) => [`model ${one.version} (${one.part})`, "batch", one.model_time]),
  ];
  show(`${id}-times`, [window, times], () => [table(["Latency", window], [
    ["stage", ([stage]) => stage], ["per", ([, unit]) => unit, ROOM],
    ...["p50", "p95", "p99"].map((name) => [name, ([, , found]) => spread(found, name, seconds), NUMBER]),
    ["mean", ([, , found]) => seconds(found?.mean), NUMBER, ROOM],
  ], times)]);

  const why = Object.entries(pipeline.batches).filter(([, number]) => number);
  const total = why.reduce((sum, [, number]) => sum + number, 0);
  const batches = [
    ["Records a batch", pipeline.batch_records
      ? `mean ${count(pipeline.batch_records.mean)}, p50 ${spread(pipeline.batch_records, "p50", count)}, p99 ${spread(pipeline.batch_records, "p99", count)}`
      : "–"],
    ["Batches", `${per(pipeline.batches_per_s)}${total ? `, due by ${why.map(([name, number]) => `${name} ${share(number / total)}`).join(", ")}` : ""}`],
    ...(pipeline.objective_s ? [["Objective", seconds(pipeline.objective_s)]] : []),
    ...(pipeline.waiting_partitions ? [["Waiting", `${many(pipeline.waiting_partitions, "partition waits", "partitions wait")} for a writer schema`]] : []),
  ];
  show(`${id}-batches`, batches, () => {
    const list = made("dl", undefined, "facts");
    list.append(...facts(batches));
    return [list];
  });

  const rollout = [`Model ${about.model}: ${pipeline.rollout}`, pipeline.revision === null ? "" : `rollout page ${pipeline.revision}`];
  show(`${id}-versions`, [rollout, pipeline.versions, pipeline.shadows], () => [
    table(rollout, [
      ["version", (one) => one.version],
      ["part", (one) => made("span", one.part, `part ${one.part === "canary" ? "canary" : ""}`)],
      ["answers", (one) => share(one.share), NUMBER], ["rate", (one) => per(one.per_s), NUMBER],
      ["model p50", (one) => spread(one.model_time, "p50", seconds), NUMBER, ROOM],
      ["model p99", (one) => spread(one.model_time, "p99", seconds), NUMBER, ROOM],
      ["failures", (one) => count(one.failures), NUMBER],
      ["loaded in", (one) => seconds(one.load_s), NUMBER, ROOM], ["digest", (one) => made("code", one.digest.slice(0, 8)), ROOM],
    ], pipeline.versions),
    ...pipeline.shadows.map((one) => made("p", `Shadow ${one.version}: ${Object.entries(one.rows).map(([what, number]) => `${count(number)} ${what}`).join(", ")}`)),
  ]);
}

function showLetters(now) {
  const letters = now.dead_letters;
  const window = seconds(Math.round(now.window_s));
  say("letters-note", letters.last.length || letters.reasons.length
    ? `${count(letters.in_window)} in the last ${window}. Payloads are not shown here, nor the values refused: they are in the dead-letter topic.`
    : "None since the worker started.");
  show("reasons", [letters.reasons, window], () => (letters.reasons.length ? [table(["", ""], [
    ["reason", (one) => one.reason], ["stage", (one) => one.stage], ["pipeline", (one) => one.pipeline, ROOM],
    ["in all", (one) => count(one.count), NUMBER], [`last ${window}`, (one) => count(one.in_window), NUMBER],
  ], letters.reasons)] : []));
  show("letters", letters.last, () => letters.last.map((one) => {
    const item = made("li");
    const time = made("time", new Date(one.at_ms).toLocaleTimeString([], { hour12: false }));
    time.dateTime = new Date(one.at_ms).toISOString();
    item.append(time, " ", made("span", one.reason, "why"), ` (${one.stage}) `,
      made("span", `${one.topic} [${one.partition}] @ ${one.offset}, version ${one.version}`, "where"),
      made("span", `${one.error}: ${one.message}`, "message"));
    return item;
  }));
}

function showDelivery(now) {
  const { transactions, rebalances, transactions_per_s: rate } = now.delivery;
  const exactly = now.worker.delivery === "exactly_once";
  const lines = [
    ["Mode", exactly ? "exactly once" : "at least once"],
    ...(exactly ? [["Transactions", `${count(transactions.committed)} committed (${per(rate)}), ${count(transactions.aborted)} aborted, ${count(transactions.dropped)} in doubt`]] : []),
    ["Rebalances", `${count(rebalances.assigned)} assigned, ${count(rebalances.revoked)} revoked, ${count(rebalances.lost)} lost`],
    ["Assignment", many(now.lag.assigned, "partition", "partitions")],
    ["Read, not yet in a batch", `${count(now.throughput.buffered_bytes)} bytes`],
  ];
  show("delivery", lines, () => facts(lines));
}

function showTroubles(now) {
  const window = seconds(Math.round(now.window_s));
  show("troubles", [now.troubles, window], () => {
    if (!now.troubles.length) return [made("p", "None since the worker started.", "muted")];
    const list = made("ul", undefined, "troubles");
    for (const one of now.troubles) {
      const item = made("li", undefined, one.in_window ? "fresh" : "");
      item.append(made("b", count(one.count)), made("span", `${one.what}${one.in_window ? `; ${count(one.in_window)} in the last ${window}` : ""}`));
      list.append(item);
    }
    return [list];
  });
}

function showLag(now) {
  const { partitions, assigned } = now.lag;
  say("lag-note", assigned > partitions.length ? `The ${partitions.length} furthest behind, of ${assigned}.`
    : assigned ? `${many(assigned, "partition is", "partitions are")} assigned to this worker; the furthest behind first.` : "No partition is assigned to this worker, or nothing is known of it yet.");
  show("lag", partitions, () => (partitions.length ? [table(["", ""], [
    ["topic", (one) => one.topic], ["partition", (one) => String(one.partition), NUMBER],
    ["records", (one) => count(one.records), NUMBER], ["age", (one) => seconds(one.seconds), NUMBER],
  ], partitions)] : []));
}

function showProcesses(now) {
  at("processes-card").hidden = !now.processes.length;
  show("processes", now.processes, () => [table(["", "All other figures are of all processes together."], [
    ["process", (one) => String(one.slot)], ["state", (one) => (one.reports ? "at work" : "no report")],
    ["records", (one) => per(one.records_per_s), NUMBER], ["lag", (one) => count(one.lag_records), NUMBER],
    ["age", (one) => seconds(one.lag_seconds), NUMBER], ["partitions", (one) => count(one.assigned), NUMBER],
    ["busy", (one) => share(one.busy_ratio), NUMBER], ["restarts", (one) => count(one.restarts), NUMBER],
  ], now.processes)]);
}

function notice(id, words) {
  at(id).hidden = !words;
  say(id, words ?? "");
}

function showAll(now) {
  say("instance", `${now.worker.instance}${now.worker.processes > 1 ? `, ${now.worker.processes} processes` : ""}`);
  notice("alive", now.alive && `Not alive: ${now.alive}`);
  notice("ready", now.ready && `Not ready: ${now.ready}`);
  showTiles(now);
  showCharts(now);
  const about = new Map(now.worker.pipelines.map((one) => [one.name, one]));
  now.pipelines.forEach((pipeline) => showPipeline(pipeline, about.get(pipeline.name), now));
  showLetters(now);
  showDelivery(now);
  showTroubles(now);
  showLag(now);
  showProcesses(now);
  say("about", `kafka-inference-worker ${now.worker.version}. Rates are of the last ${seconds(Math.round(now.rate_s))}; `
    + `percentiles are computed from histogram buckets over the last ${seconds(Math.round(now.window_s))}, and are exact to a bucket.`);
}

// -- the connection --------------------------------------------------------------------------------------

let heardAt = 0; // performance.now() of the last snapshot
let newest = null;
let paused = false;
let connection = null; // aborts it
let retryMs = RETRY_FIRST_MS;
let retry = 0;
let hiddenSince = 0;
let leaving = 0;

function state(name, words) {
  at("state").dataset.state = name;
  say("state-words", words);
  document.title = `${name === "gone" ? "Gone: " : ""}${newest ? newest.worker.instance : "Inference worker"}`;
}

function heard(snapshot) {
  newest = snapshot;
  heardAt = performance.now();
  retryMs = RETRY_FIRST_MS;
  document.body.classList.remove("stale");
  if (paused) return;
  say("age", "");
  state("live", "Live");
  showAll(snapshot);
}

function lost(words) {
  if (newest && !document.body.classList.contains("stale")) Object.values(charts).forEach((chart) => chart.gap(Date.now()));
  document.body.classList.add("stale");
  state("gone", words);
}

async function connect() {
  clearTimeout(retry);
  connection?.abort();
  const mine = new AbortController();
  connection = mine;
  let silence = setTimeout(() => mine.abort(), SILENT_MS);
  let words = "The worker cannot be reached.";
  let full = false;
  try {
    const answer = await fetch("live", { signal: mine.signal, cache: "no-store" });
    if (!answer.ok) {
      full = answer.status === 503;
      throw new Error((await answer.text()).slice(0, 200));
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      clearTimeout(silence);
      silence = setTimeout(() => mine.abort(), SILENT_MS);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        if (event.startsWith("event: ended")) words = "The worker has ended.";
        else if (event.startsWith("data: ")) heard(JSON.parse(event.slice(6)));
      }
    }
  } catch (error) {
    if (full) words = error.message;
    else if (!(error instanceof TypeError) && error.name !== "AbortError") console.error(error);
  } finally {
    clearTimeout(silence);
  }
  if (connection !== mine || hiddenSince) return;
  if (full && !newest) state("full", words);
  else lost(words);
  retry = setTimeout(connect, retryMs);
  retryMs = Math.min(retryMs * 2, RETRY_MOST_MS);
}

// How old the figures are: beside the words that are read aloud, which change once.
setInterval(() => {
  if (!newest) return;
  const old = performance.now() - heardAt;
  if (document.body.classList.contains("stale")) say("age", `Figures are ${seconds(Math.round(old / 1000))} old; trying again.`);
  else if (old > STALE_MS && !hiddenSince) lost("The worker is silent.");
}, 1000);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    leaving = setTimeout(() => {
      hiddenSince = performance.now();
      connection?.abort();
    }, HIDDEN_MS);
  } else {
    clearTimeout(leaving);
    const left = hiddenSince;
    hiddenSince = 0;
    if (left || document.body.classList.contains("stale")) connect();
  }
});
addEventListener("online", connect);

// -- controls --------------------------------------------------------------------------------------------

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  if (document.body.classList.contains("stale")) return;
  if (paused) state("paused", "Paused");
  else if (newest) heard(newest);
});

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  at("theme").textContent = `Theme: ${name}`;
  Object.values(charts).forEach((chart) => chart.draw());
}

at("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
  try {
    localStorage.setItem("theme", next);
  } catch {
    // it holds until the page is left
  }
  theme(next);
});

setCharts();
theme(document.documentElement.dataset.theme ?? "auto");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(document.documentElement.dataset.theme ?? "auto"));
connect();
