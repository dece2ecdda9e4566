"use strict";
// The arm as a drawing: its links seen from the side and a little from above, where it was measured and where it is meant to be.
const FROM = -0.9, ABOVE = 0.42;

// What a drawing is called: "the arm", or which of several.
function armName(chain) {
  return chain.name ? `the ${chain.name} arm` : "the arm";
}

// Where the joints and the tip are, in metres, at positions `q` of all axes.
function placesOf(chain, q) {
  let at = [0, 0, 0], turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const places = [at], times = (m, v) => m.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const product = (a, b) => a.map((row) => [0, 1, 2].map((column) => row[0] * b[0][column] + row[1] * b[1][column] + row[2] * b[2][column]));
  chain.frames.forEach(([pos, [w, x, y, z]], joint) => {
    const step = times(turn, pos), angle = q[chain.first + joint], c = Math.cos(angle), s = Math.sin(angle);
    at = at.map((value, axis) => value + step[axis]);
    turn = product(product(turn, [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]), [[c, -s, 0], [s, c, 0], [0, 0, 1]]);
    places.push(at);
  });
  const tip = times(turn, chain.tip_m);
  return [...places, at.map((value, axis) => value + tip[axis])];
}

// Fills an <svg> and returns what moves it: a function of measured and commanded positions.
function armDrawing(svg, chain) {
  const reach = 0.7 * [...chain.frames.map(([pos]) => pos), chain.tip_m].reduce((sum, pos) => sum + Math.hypot(...pos), 0);
  const seen = ([x, y, z]) => {
    const across = x * Math.cos(FROM) - y * Math.sin(FROM), away = x * Math.sin(FROM) + y * Math.cos(FROM);
    return [across / reach, (-away * Math.sin(ABOVE) - z * Math.cos(ABOVE)) / reach];
  };
  const make = (name, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(values).forEach(([key, value]) => made.setAttribute(key, value));
    svg.append(made);
    return made;
  };
  const path = (points) => points.map((point, index) => `${index ? "L" : "M"}${seen(point).map((value) => value.toFixed(4)).join(" ")}`).join("");
  svg.replaceChildren();
  svg.setAttribute("viewBox", "-1.15 -1.1 2.3 1.62");
  [0.5, 1].forEach((share) => {
    const round = Array.from({ length: 49 }, (_, index) => [share * reach * Math.cos(index * Math.PI / 24), share * reach * Math.sin(index * Math.PI / 24), 0]);
    make("path", { d: path(round), class: "ground" });
  });
  make("path", { d: path([[0, 0, 0], [reach, 0, 0]]), class: "ground" });
  const shadow = make("path", { class: "shadow" }), meant = make("path", { class: "meant" }), links = make("path", { class: "links" });
  const joints = chain.frames.map(() => make("circle", { r: 0.022, class: "pivot" })), tip = make("circle", { r: 0.03, class: "tip" });
  [...joints, tip].forEach((circle) => circle.setAttribute("visibility", "hidden"));
  return (measured, commanded) => {
    const places = placesOf(chain, measured);
    shadow.setAttribute("d", path(places.map(([x, y]) => [x, y, 0])));
    meant.setAttribute("d", path(placesOf(chain, commanded)));
    links.setAttribute("d", path(places));
    [...joints, tip].forEach((circle, index) => {
      const [x, y] = seen(places[index + 1]);
      circle.removeAttribute("visibility"); circle.setAttribute("cx", x.toFixed(4)); circle.setAttribute("cy", y.toFixed(4));
    });
  };
}
