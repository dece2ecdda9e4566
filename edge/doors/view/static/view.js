"use strict";
// Draws what the run publishes, and sends the buttons. Nothing is fetched from anywhere else.
const PAST_S = 10, AHEAD_S = 2, CHUNKS = 60, LOST_MS = 1500, PERIOD_MS = 40, RETRY_MS = 1000, UNSENT_MS = 5000;
const ENGINE_COLOURS = 4, FRAME_MS = 250, STALE_MS = 1000;
const cameras = [];
const token = location.hash.slice(1);
const at = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const page = crypto.getRandomValues(new Uint32Array(2)).join("-");
let unsent = { text: "", until: 0 };
let moveArms = null;
let about = null, newest = null, number = 0, heardAt = 0, newsAt = 0, dirty = false;
const samples = [], splices = [], latencies = [], refusals = [];

function canvasOf(element) {
  const ratio = window.devicePixelRatio || 1, width = element.clientWidth, height = element.clientHeight;
  if (element.width !== Math.round(width * ratio)) element.width = Math.round(width * ratio);
  if (element.height !== Math.round(height * ratio)) element.height = Math.round(height * ratio);
  const pen = element.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return [pen, width, height];
}

function line(pen, points, x, y, style, width, dash) {
  pen.beginPath();
  points.forEach(([px, py], index) => (index ? pen.lineTo(x(px), y(py)) : pen.moveTo(x(px), y(py))));
  pen.strokeStyle = style; pen.lineWidth = width; pen.setLineDash(dash || []); pen.stroke(); pen.setLineDash([]);
}

function setUp() {
  at("arm").textContent = about.arm + (about.simulated ? " (simulated)" : "");
  document.title = `${about.arm} - vla-edge`;
  at("task").textContent = `${about.task} - ${about.bridge}`;
  at("joints").replaceChildren(...about.joints.map((name, index) => {
    const box = document.createElement("div"), head = document.createElement("p"), canvas = document.createElement("canvas");
    const label = document.createElement("span"), value = document.createElement("span");
    box.className = "joint"; label.textContent = name; value.id = `joint-${index}`;
    head.append(label, value); box.append(head, canvas);
    return box;
  }));
  at("cameras").hidden = !about.cameras.length;
  at("cameras").replaceChildren(...about.cameras.map((name, index) => {
    const box = document.createElement("figure"), image = document.createElement("img"), words = document.createElement("figcaption");
    const label = document.createElement("span"), age = document.createElement("span");
    box.className = "camera stale"; image.alt = `camera ${name}`; label.textContent = `camera ${name}`; age.textContent = "no frame yet";
    words.append(label, age); box.append(image, words);
    cameras[index] = { box, image, age, captured: "0", at: 0 };
    return box;
  }));
  cameras.forEach((_, index) => look(index));
  const movers = about.chains.map((chain) => {
    const box = document.createElement("figure"), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), words = document.createElement("figcaption");
    box.className = "drawing"; svg.setAttribute("role", "img"); svg.setAttribute("aria-label", armName(chain));
    words.textContent = `${armName(chain)}: measured, and behind it as commanded; x points to the right, towards you`;
    box.append(svg, words); at("cameras").append(box); at("cameras").hidden = false;
    return armDrawing(svg, chain);
  });
  moveArms = (measured, commanded) => movers.forEach((move) => move(measured, commanded));
  at("engines").replaceChildren(...["camera", ...about.parts].flatMap((name, index) => {
    const mark = document.createElement("i");
    mark.style.background = `var(--e${index % ENGINE_COLOURS})`; mark.style.height = "8px"; mark.style.marginBottom = "0";
    return [mark, name.replaceAll("_", " ")];
  }));
}

// A frame's age is the run's own: how old it was when it was handed out, and the time since.
async function look(index) {
  if (newest && newest.phase === "ended") return;
  const camera = cameras[index];
  let wait = FRAME_MS;
  try {
    const headers = { "X-Token": token, "X-Camera": index, "X-After": camera.captured };
    const answer = await fetch("/frame", { headers, signal: AbortSignal.timeout(LOST_MS) });
    if (answer.status === 200) {
      const url = URL.createObjectURL(await answer.blob()), before = camera.image.src;
      camera.captured = answer.headers.get("X-Captured");
      camera.at = Date.now() - Number(answer.headers.get("X-Age-Ms"));
      camera.image.src = url;
      if (before) URL.revokeObjectURL(before);
    } else if (!answer.ok) throw new Error((await answer.text()).trim());
  } catch (error) {
    wait = RETRY_MS;
    if (!camera.at) camera.age.textContent = error.message;
  }
  setTimeout(() => look(index), wait);
}

function drawCameras() {
  cameras.forEach((camera) => {
    if (!camera.at) return;
    const old = Date.now() - camera.at, over = newest.phase === "ended";
    const stale = old > STALE_MS;
    camera.box.classList.toggle("stale", stale && !over);
    const age = old < 10000 ? `${(old / 1000).toFixed(1)} s old` : `${(old / 1000).toFixed(0)} s old`;
    camera.age.textContent = over ? "the last frame" : stale ? `STALE, ${age}` : age;
  });
}

function take(snapshot) {
  const before = newest;
  newest = snapshot;
  if (before && (snapshot.device_us < before.device_us || snapshot.chunks < before.chunks)) {  // another run has begun
    [samples, splices, latencies, refusals].forEach((kept) => { kept.length = 0; });
    at("refusals").replaceChildren(Object.assign(document.createElement("li"), { className: "none", textContent: "none" }));
  }
  if (snapshot.device_us && (!before || snapshot.device_us > before.device_us)) {
    samples.push(snapshot);
    while (samples[0].device_us < snapshot.device_us - PAST_S * 1e6) samples.shift();
  }
  if (snapshot.splice_us && (!splices.length || splices[splices.length - 1] !== snapshot.splice_us)) {
    splices.push(snapshot.splice_us);
    if (splices.length > 200) splices.shift();
  }
  if (before && snapshot.chunks > before.chunks) {
    latencies.push([snapshot.latency_ms, snapshot.engines_ms]);
    if (latencies.length > CHUNKS) latencies.shift();
  }
  if (snapshot.refused > (before ? before.refused : 0)) {
    refusals.unshift(`${snapshot.refused}. ${snapshot.refusal}`);
    refusals.length = Math.min(refusals.length, 5);
  }
  dirty = true;
}

function drawJoint(canvas, joint) {
  const [pen, width, height] = canvasOf(canvas), now = newest.device_us;
  const seconds = (us) => (us - now) / 1e6;
  const commanded = samples.map((s) => [seconds(s.device_us), s.commanded[joint]]);
  const measured = samples.map((s) => [seconds(s.device_us), s.measured[joint]]);
  const plan = newest.plan.map((row, index) => [seconds(newest.plan_us[index]), row[joint]]);
  const values = [...commanded, ...measured, ...plan].map((point) => point[1]);
  let low = Math.min(...values), high = Math.max(...values);
  const room = Math.max(0.01, 0.1 * (high - low));
  low -= room; high += room;
  const left = 46, x = (s) => left + (s + PAST_S) / (PAST_S + AHEAD_S) * (width - left - 4), y = (v) => height - 14 - (v - low) / (high - low) * (height - 20);
  pen.strokeStyle = colour("--line"); pen.lineWidth = 1;
  pen.fillStyle = colour("--dim");
  [low, (low + high) / 2, high].forEach((value) => {
    pen.beginPath(); pen.moveTo(left, y(value)); pen.lineTo(width - 4, y(value)); pen.stroke();
    pen.textAlign = "right"; pen.fillText(value.toFixed(2), left - 4, y(value) + 4);
  });
  if (about.limits) {
    const bad = colour("--bad"), [least, most] = [about.limits[0][joint], about.limits[1][joint]];
    pen.fillStyle = bad; pen.globalAlpha = 0.16;
    if (most < high) pen.fillRect(left, y(high), width - left - 4, y(Math.max(most, low)) - y(high));
    if (least > low) pen.fillRect(left, y(Math.min(least, high)), width - left - 4, y(low) - y(Math.min(least, high)));
    pen.globalAlpha = 1;
    [least, most].filter((value) => value > low && value < high).forEach((value) => line(pen, [[-PAST_S, value], [AHEAD_S, value]], x, y, bad, 1));
  }
  splices.map(seconds).filter((s) => s >= -PAST_S && s <= AHEAD_S).forEach((s) => {
    line(pen, [[s, low], [s, high]], x, y, colour("--splice"), 0.6);
  });
  line(pen, [[0, low], [0, high]], x, y, colour("--dim"), 1);
  line(pen, plan.filter(([s]) => s <= AHEAD_S), x, y, colour("--plan"), 3);
  line(pen, commanded, x, y, colour("--commanded"), 1.8);
  line(pen, measured, x, y, colour("--measured"), 1.4, [4, 3]);
  pen.textAlign = "center"; pen.fillStyle = colour("--dim");
  [-8, -4, 0, 2].forEach((s) => pen.fillText(s ? `${s > 0 ? "+" : ""}${s} s` : "now", Math.min(x(s), width - 16), height - 2));
  at(`joint-${joint}`).textContent = `${newest.measured[joint].toFixed(4)} ${about.units[joint]}`;
}

function drawBuffer() {
  const [pen, width, height] = canvasOf(at("buffer")), now = newest.device_us;
  const most = Math.max(500, ...samples.map((s) => s.buffered_ms)) * 1.05;
  const x = (us) => 54 + ((us - now) / 1e6 + PAST_S) / PAST_S * (width - 58), y = (ms) => height - 6 - ms / most * (height - 14);
  pen.beginPath(); pen.moveTo(x(samples[0].device_us), y(0));
  samples.forEach((s) => pen.lineTo(x(s.device_us), y(s.buffered_ms)));
  pen.lineTo(x(now), y(0)); pen.closePath();
  pen.fillStyle = colour("--buffer"); pen.globalAlpha = 0.35; pen.fill(); pen.globalAlpha = 1;
  line(pen, samples.map((s) => [s.device_us, s.buffered_ms]), x, y, colour("--buffer"), 1.5);
  pen.fillStyle = colour("--dim"); pen.textAlign = "right";
  [0, most / 1.05].forEach((value) => pen.fillText(`${value.toFixed(0)} ms`, 50, y(value) + 4));
  at("buffer-now").textContent = `${newest.buffered_ms} ms`;
}

function drawLatency() {
  const [pen, width, height] = canvasOf(at("latency"));
  const most = Math.max(20, ...latencies.map(([whole]) => whole)) * 1.1;
  const step = (width - 58) / CHUNKS, y = (ms) => height - 6 - ms / most * (height - 14);
  latencies.forEach(([whole, engines], index) => {
    const x = 56 + (CHUNKS - latencies.length + index) * step;
    let sum = 0;
    pen.fillStyle = colour("--line"); pen.fillRect(x, y(whole), Math.max(1, step - 1.5), y(0) - y(whole));
    engines.forEach((ms, engine) => {
      pen.fillStyle = colour(`--e${engine % ENGINE_COLOURS}`);
      pen.fillRect(x, y(sum + ms), Math.max(1, step - 1.5), y(sum) - y(sum + ms));
      sum += ms;
    });
  });
  pen.fillStyle = colour("--dim"); pen.textAlign = "right";
  [0, most / 1.1].forEach((value) => pen.fillText(`${value.toFixed(0)} ms`, 50, y(value) + 4));
  at("reaction").textContent = newest.reaction_ms ? `reaction: ${newest.reaction_ms.toFixed(0)} ms from a frame to the motion that follows from it` : "";
  at("latency-now").textContent = newest.chunks ? `${newest.latency_ms.toFixed(1)} ms` : "";
}

function drawLateness() {
  const [pen, width, height] = canvasOf(at("lateness")), counts = newest.lateness, edges = about.lateness_edges_us;
  const most = Math.log10(Math.max(10, ...counts)), step = width / counts.length;
  const total = counts.reduce((sum, count) => sum + count, 0);
  counts.forEach((count, index) => {
    const tall = count ? Math.max(2, (Math.log10(count) + 0.15) / (most + 0.15) * (height - 30)) : 0;
    pen.fillStyle = colour(edges[index] > 1000 ? "--bad" : "--commanded");
    pen.fillRect(index * step + 2, height - 15 - tall, step - 4, tall);
    pen.fillStyle = colour("--dim"); pen.textAlign = "center";
    const edge = edges[index], last = index === counts.length - 1;
    pen.fillText((last ? ">" + edges[index - 1] / 1000 + "m" : edge >= 1000 ? edge / 1000 + "m" : edge + "u"), (index + 0.5) * step, height - 3);
    if (count) pen.fillText(count >= 1e4 ? `${(count / 1e3).toFixed(0)}k` : count, (index + 0.5) * step, height - 18 - tall);
  });
  let seen = 0, percentile = "";
  counts.some((count, index) => { seen += count; percentile = `p99 up to ${edges[index]} us`; return seen >= 0.99 * total; });
  at("late-now").textContent = total ? percentile : "";
}

// A fault or an emergency stop that was found before anything was armed: a person may clear it here.
function latched() {
  return newest.phase === "waiting" && ["fault", "estop"].includes(newest.state);
}

// What the run is doing, in the words of the page: [state, note, whether it is bad].
function told() {
  const silent = Date.now() - newsAt, note = newest.note;
  if (newest.phase === "ended") {
    const state = { estop: "emergency stop", fault: "fault" }[newest.state] || "ended";
    return [state, `The run is over: ${note || "no reason was given"}. Start edge-run again to go on.`, state !== "ended"];
  }
  if (Date.now() - heardAt > LOST_MS)
    return ["not connected", `Not connected: edge-run has gone, or does not get to answer. This is the last that was heard. ${note}`, true];
  if (newest.phase === "starting") return ["starting", note, false];
  if (newest.phase === "waiting" && latched()) return [newest.state === "fault" ? "fault" : "emergency stop", note, true];
  if (newest.phase === "waiting") return ["waiting for start", note, false];
  if (silent > LOST_MS)
    return ["no news", `No news from the run for ${(silent / 1000).toFixed(0)} s. Without its heartbeat the device stops the arm.`, true];
  if (["estop", "fault"].includes(newest.state))
    return [newest.state === "fault" ? "fault" : "emergency stop", "The device brings the arm to rest and takes the drive away.", true];
  if (newest.motion !== "running") return [`${newest.state} (${newest.motion})`, note, false];
  return [newest.state, ["armed", "streaming"].includes(newest.state) ? "" : note, false];
}

function drawWords() {
  const [state, note, bad] = told(), lost = state === "not connected" || newest.phase === "ended";
  at("state").textContent = state;
  at("state").dataset.state = state === "not connected" ? "lost" : newest.phase === "running" || newest.phase === "ended" ? newest.state : newest.phase;
  const failed = Date.now() < unsent.until ? unsent.text : "";
  at("note").textContent = failed || note;
  at("note").className = bad || failed ? "bad" : "";
  const moves = newest.phase === "running" && newest.motion === "running" && ["armed", "streaming"].includes(newest.state);
  const held = newest.motion === "held" || newest.phase === "waiting";
  at("start").disabled = lost || !held || latched();
  at("clear").hidden = lost || !latched();
  at("home").disabled = lost || newest.motion !== "held";
  at("pause").disabled = lost || !moves;
  at("takeover").hidden = !about.leader; at("takeover").disabled = lost || newest.motion !== "held";
  at("verdicts").hidden = !about.verdicts;
  ["success", "fail", "discard"].forEach((name) => { at(name).disabled = lost || newest.phase !== "running"; });
  // Whether a stop arrives is for its answer to say: a page that has heard nothing for a while may still be heard.
  at("stop").disabled = at("estop").disabled = newest.phase === "ended";
  const steps = newest.step_ms > 0;
  const rows = { "chunks joined": newest.committed, "late": newest.late, "refused": newest.refused, "limiter": newest.interventions,
    "loop steps": newest.ticks, "overruns": newest.overruns, "step": steps ? `${newest.step_ms.toFixed(0)} ms` : "-",
    "pace": steps ? `${(100 * about.step_ms / newest.step_ms).toFixed(0)} %` : "-" };
  at("counts").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => {
    const term = document.createElement("dt"), number = document.createElement("dd");
    term.textContent = name; number.textContent = value;
    return [term, number];
  }));
  if (refusals.length) at("refusals").replaceChildren(...refusals.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

function draw() {
  requestAnimationFrame(draw);
  if (!newest || !about) return;
  if (dirty) {
    dirty = false;
    if (samples.length && newest.device_us) {
      document.querySelectorAll(".joint canvas").forEach(drawJoint);
      drawBuffer(); drawLatency(); drawLateness();
      if (moveArms) moveArms(newest.measured, newest.commanded);
    }
  }
  drawWords();
  drawCameras();
}

async function press(name) {
  try {
    const answer = await fetch("/command", { method: "POST", headers: { "X-Token": token }, body: name });
    if (!answer.ok) throw new Error(await answer.text());
  } catch (error) {
    unsent = { text: `${name} was NOT sent: ${error.message}`, until: Date.now() + UNSENT_MS };
  }
}

at("clear").addEventListener("click", () => {
  if (confirm(`${newest.note}\n\nHas the cause been put right, and is nobody within reach of the arm?`)) press("clear");
});
["start", "home", "pause", "takeover", "stop", "estop", "success", "fail", "discard"].forEach((name) => at(name).addEventListener("click", () => press(name)));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") press("estop"); });

async function ask(path, headers) {
  const answer = await fetch(path, { headers: { "X-Token": token, ...headers }, signal: AbortSignal.timeout(LOST_MS) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

// Asks again and again, since a connection that is held would be one of the six that a browser has for all of its tabs.
async function poll() {
  let wait = PERIOD_MS;
  try {
    if (!about) { about = await ask("/about"); setUp(); }
    const answer = await ask("/snapshot", { "X-After": number, "X-Page": page });
    heardAt = Date.now();
    if (answer.snapshot) { newsAt = heardAt; number = answer.number; take(answer.snapshot); }
    if (newest && newest.phase === "ended") return;
  } catch (error) {
    wait = RETRY_MS;
    if (!about) { at("note").textContent = `No run here: ${error.message}`; at("note").className = "bad"; }
  }
  setTimeout(poll, wait);
}
poll();
requestAnimationFrame(draw);
