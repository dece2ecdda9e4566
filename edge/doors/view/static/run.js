// A finished run: all of it is in this file, and the slider says which moment is shown.
const run = JSON.parse(document.getElementById("run").textContent), STALE_S = 1, FRAME_LOOK_S = 0.001;
const at = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (name, values, ...children) => { const made = Object.assign(document.createElement(name), values); made.append(...children); return made; };
const end = run.t[run.t.length - 1], LEFT = 46;
let now = 0, playing = 0;

// The last entry of a sorted list that is not after `t`, or -1.
function before(times, t) {
  let low = 0, high = times.length;
  while (low < high) { const middle = (low + high) >> 1; if (times[middle] <= t) low = middle + 1; else high = middle; }
  return low - 1;
}

function penOf(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.font = "11px system-ui, sans-serif";
  return [pen, width, height];
}

function line(pen, points, style, width, dash) {
  pen.beginPath(); points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.strokeStyle = style; pen.lineWidth = width; pen.setLineDash(dash || []); pen.stroke(); pen.setLineDash([]);
}

// What does not change with the moment is drawn once and kept as a picture.
class Plot {
  constructor(canvas, low, high, draw) {
    Object.assign(this, { canvas, low, high, draw });
    canvas.addEventListener("pointerdown", (event) => go((event.offsetX - LEFT) / (canvas.clientWidth - LEFT - 4) * end));
  }
  size() {
    [this.pen, this.width, this.height] = penOf(this.canvas);
    this.kept = null;
    if (!this.canvas.width || !this.canvas.height) return;  // not laid out yet: `size` comes again
    const { pen, low, high } = this;
    pen.fillStyle = colour("--dim"); pen.strokeStyle = colour("--line");
    [low, (low + high) / 2, high].forEach((value) => {
      pen.beginPath(); pen.moveTo(LEFT, this.y(value)); pen.lineTo(this.width - 4, this.y(value)); pen.stroke();
      pen.textAlign = "right"; pen.fillText(Math.abs(high) >= 100 ? value.toFixed(0) : value.toFixed(2), LEFT - 4, this.y(value) + 4);
    });
    pen.textAlign = "center";
    for (let part = 0; part <= 4; part += 1) {
      const s = part * end / 4;
      pen.textAlign = part === 4 ? "right" : part ? "center" : "left"; pen.fillText(`${s.toFixed(1)} s`, this.x(s), this.height - 2);
    }
    this.draw(this);
    const kept = document.createElement("canvas");
    kept.width = this.canvas.width; kept.height = this.canvas.height;
    kept.getContext("2d").drawImage(this.canvas, 0, 0);
    this.kept = kept;
  }
  x(s) { return LEFT + s / end * (this.width - LEFT - 4); }
  y(value) { return this.height - 14 - (value - this.low) / (this.high - this.low) * (this.height - 20); }
  trace(values, style, width, dash) { line(this.pen, values.map((value, index) => [this.x(run.t[index]), this.y(value)]), style, width, dash); }
  moment(more) {
    if (!this.kept) return;
    const { pen } = this;
    pen.save(); pen.setTransform(1, 0, 0, 1, 0, 0); pen.clearRect(0, 0, this.canvas.width, this.canvas.height); pen.drawImage(this.kept, 0, 0); pen.restore();
    if (more) more(this);
    line(pen, [[this.x(now), 4], [this.x(now), this.height - 14]], colour("--ink"), 1.2);
  }
}

function drawJoint(joint) {
  return (plot) => {
    const { pen } = plot, [least, most] = [run.limits[0][joint], run.limits[1][joint]], wide = plot.width - LEFT - 4;
    pen.fillStyle = colour("--e1"); pen.globalAlpha = 0.13;
    run.person.forEach(([from, to]) => pen.fillRect(plot.x(from), plot.y(plot.high), plot.x(to) - plot.x(from), plot.y(plot.low) - plot.y(plot.high)));
    pen.fillStyle = colour("--bad"); pen.globalAlpha = 0.16;
    if (most < plot.high) pen.fillRect(LEFT, plot.y(plot.high), wide, plot.y(Math.max(most, plot.low)) - plot.y(plot.high));
    if (least > plot.low) pen.fillRect(LEFT, plot.y(Math.min(least, plot.high)), wide, plot.y(plot.low) - plot.y(Math.min(least, plot.high)));
    pen.globalAlpha = 1;
    [least, most].filter((value) => value > plot.low && value < plot.high).forEach((value) => line(pen, [[LEFT, plot.y(value)], [plot.width - 4, plot.y(value)]], colour("--bad"), 1));
    run.chunks.filter((chunk) => chunk.joined !== null).forEach((chunk) => line(pen, [[plot.x(chunk.joined), 6], [plot.x(chunk.joined), plot.height - 14]], colour("--splice"), run.chunks.length > 60 ? 0.15 : 0.5));
    plot.trace(run.commanded[joint], colour("--commanded"), 1.8);
    plot.trace(run.measured[joint], colour("--measured"), 1.4, [4, 3]);
  };
}

const plots = run.joints.map((name, joint) => {
  const values = [...run.commanded[joint], ...run.measured[joint]], value = make("span");
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const room = Math.max(0.01, 0.1 * (high - low)), canvas = make("canvas");
  low -= room; high += room;
  at("joints").append(make("div", { className: "joint" }, make("p", {}, make("span", { textContent: `${name}, limits ${run.limits[0][joint].toFixed(2)} to ${run.limits[1][joint].toFixed(2)}` }), value), canvas));
  return Object.assign(new Plot(canvas, low, high, drawJoint(joint)), { value, joint });
});
const buffer = new Plot(at("buffer"), 0, Math.max(100, ...run.buffered.filter((_, index) => index % 7 === 0)) * 1.05, (plot) => plot.trace(run.buffered, colour("--buffer"), 1.4));

const cameras = run.cameras.map((camera) => {
  const image = make("img", { alt: `camera ${camera.name}` }), age = make("span");
  const box = make("figure", { className: "camera" }, image, make("figcaption", {}, make("span", { textContent: `camera ${camera.name}` }), age));
  at("cameras").append(box);
  return { box, image, age, times: camera.frames.map(([t]) => t), frames: camera.frames, shown: -1 };
});
const movers = run.chains.map((chain) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img"); svg.setAttribute("aria-label", armName(chain));
  at("cameras").append(make("figure", { className: "drawing" }, svg, make("figcaption", { textContent: `${armName(chain)}: measured, and behind it as commanded; x points to the right, towards you` })));
  return armDrawing(svg, chain);
});

const rows = run.decisions.map(([t, name, text]) => {
  const button = make("button", { type: "button", className: ["stop", "refused", "late", "line lost", "paused"].includes(name) ? "bad" : "" }, make("time", { textContent: `${t.toFixed(2)} s` }), `${name}${text ? `: ${text}` : ""}`);
  button.addEventListener("click", () => go(t));
  at("decisions").append(make("li", {}, button));
  return button;
});
const times = run.decisions.map(([t]) => t);

at("arm").textContent = run.arm + (run.simulated ? " (simulated)" : "");
document.title = `${run.arm}: ${run.task}`;
at("task").textContent = `${run.task} - ${run.bridge}`;
at("why").textContent = run.why; at("why").className = run.bad ? "bad" : "";
Object.entries(run.facts).forEach(([name, value]) => at("facts").append(make("dt", { textContent: name }), make("dd", { textContent: value })));
at("time").max = end; at("time").step = 0.01;

function show() {
  const row = Math.max(0, before(run.t, now)), chunk = run.chunks[before(run.chunks.map((one) => one.told), now)];
  plots.forEach((plot) => {
    plot.moment((one) => { if (chunk) line(one.pen, chunk.q.map((knot, index) => [one.x(chunk.t + index * chunk.dt), one.y(knot[one.joint])]).filter(([x]) => x < one.width), colour("--plan"), 3); });
    plot.value.textContent = `${run.measured[plot.joint][row].toFixed(4)} ${run.units[plot.joint]}`;
  });
  buffer.moment(); at("buffer-now").textContent = `${run.buffered[row]} ms`;
  cameras.forEach((camera) => {
    const index = before(camera.times, now + FRAME_LOOK_S);
    if (index !== camera.shown) { camera.shown = index; if (index >= 0) camera.image.src = `data:image/jpeg;base64,${camera.frames[index][1]}`; else camera.image.removeAttribute("src"); }
    const old = index < 0 ? 0 : Math.max(0, now - camera.times[index]);
    camera.box.classList.toggle("stale", index < 0 || old > STALE_S);
    camera.age.textContent = index < 0 ? "no frame yet" : `${old > STALE_S ? "STALE, " : ""}${old.toFixed(2)} s old`;
  });
  movers.forEach((move) => move(run.measured.map((column) => column[row]), run.commanded.map((column) => column[row])));
  const last = before(times, now);
  rows.forEach((button, index) => { button.classList.toggle("past", index < last); button.classList.toggle("now", index === last); });
  if (last >= 0) { const list = at("decisions"), item = rows[last].parentElement; list.scrollTop = item.offsetTop - list.offsetTop - list.clientHeight / 2; }
  const state = run.states[before(run.states.map(([t]) => t), now)];
  at("state").textContent = state ? state[1] : ""; at("state").dataset.state = state ? state[1] : "";
  at("now").textContent = `${now.toFixed(2)} of ${end.toFixed(2)} s`;
}

function go(t) { now = Math.min(end, Math.max(0, t)); at("time").value = now; show(); }
function play(stamp) {
  if (!playing) return;
  go(now + (stamp - playing) / 1000); playing = stamp;
  if (now >= end) pause(); else requestAnimationFrame(play);
}
function pause() { playing = 0; at("play").textContent = "Play"; }
at("play").addEventListener("click", () => {
  if (playing) { pause(); return; }
  if (now >= end) go(0);
  at("play").textContent = "Pause";
  requestAnimationFrame((stamp) => { playing = stamp; requestAnimationFrame(play); });
});
at("time").addEventListener("input", () => { now = Number(at("time").value); show(); });
function size() { [...plots, buffer].forEach((plot) => plot.size()); show(); }
window.addEventListener("resize", size);
window.addEventListener("load", size);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", size);
size();
