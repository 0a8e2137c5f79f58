// Beside the map: switches, search, the filter of labels, and the neighbours of the image that was chosen.

const MOST_RESULTS = 50;

function neighboursOf(place) {
  const start = place * data.nearest;
  return Array.from({ length: data.nearest }, (_, n) => [points.neighbours[start + n], points.distances[start + n]]);
}

function card(place, more) {
  const button = make("button", { type: "button", className: "card" }, thumbnail(place), describe(place, more));
  button.addEventListener("click", () => choose(place));
  return button;
}

function choose(place) {
  state.chosen = place;
  $("subject").replaceChildren(thumbnail(place), describe(place));
  $("nearest").replaceChildren(
    ...neighboursOf(place).map(([other, distance]) => {
      const same = points.label[other] === points.label[place] ? "" : ", another label";
      return make("li", {}, card(other, `distance ${distance.toFixed(2)}${same}`));
    }),
  );
  showList("chosen");
  drawMap();
  hideTip();
  $("chosen-title").focus({ preventScroll: true });
  $("chosen-title").scrollIntoView({ block: innerWidth > 900 ? "nearest" : "start" });
  $("nearest").scrollTop = 0;
}

function showList(name) {
  for (const each of ["found", "chosen"]) $(each).hidden = each !== name;
}

function backToList() {
  showList("found");
  showCurrent();
  ($("results").querySelector('[aria-current="true"]') ?? $("search")).focus();
}

function showCurrent() {
  for (const button of $("results").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.place) === state.chosen));
  }
}

function listResults() {
  const places = visible();
  $("results").replaceChildren(
    ...places.slice(0, MOST_RESULTS).map((place) => {
      const button = card(place);
      button.dataset.place = place;
      return make("li", {}, button);
    }),
  );
  const first = places.length > MOST_RESULTS ? `, the first ${MOST_RESULTS} are listed` : "";
  $("results-count").textContent = places.length ? `${count(places.length, points.count, "match")}${first}` : "None match.";
  showCurrent();
}

function update() {
  $("filter-count").textContent = `(${count(state.labels.size, data.labels.length, "on the map")})`;
  listResults();
  return drawMap();
}

function radios(parent, name, options, chosen, pick) {
  for (const [text, value, disabled] of options) {
    const input = make("input", { type: "radio", name, checked: value === chosen, disabled: Boolean(disabled) });
    input.addEventListener("change", () => pick(value));
    parent.append(make("label", {}, input, text));
  }
}

function fillControls() {
  const splits = [["all", null], ...data.splits.map((split, number) => [split, number])];
  radios($("splits"), "split", splits, null, (value) => { state.split = value; update(); });
  $("splits").hidden = data.splits.length < 2;
  const views = [["2-D", false], ["3-D", true, data.components < 3]];
  radios($("views"), "view", views, false, (value) => { state.spatial = value; showAxes(); drawMap(); });
  state.axes.forEach((chosen, number) => {
    const select = make("select", { id: `axis-${number}`, ariaLabel: `Component on the axis ${"XYZ"[number]}` });
    for (let each = 0; each < data.components; each++) select.append(new Option(component(each), each));
    select.value = chosen;
    select.addEventListener("change", () => { state.axes[number] = Number(select.value); drawMap(); });
    $("axes").append(select);
  });
  showAxes();
}

function showAxes() {
  $("axis-2").hidden = !state.spatial;
}

function fillLabels() {
  $("choices").replaceChildren(
    ...data.labels.map((text, label) => {
      const input = make("input", { type: "checkbox", checked: state.labels.has(label) });
      input.addEventListener("change", () => { state.labels[input.checked ? "add" : "delete"](label); update(); });
      return make("label", {}, input, glyph(label), make("span", { textContent: text }));
    }),
  );
}

function pickLabels(labels) {
  state.labels = new Set(labels);
  fillLabels();
  update();
}

function bindControls() {
  let waiting;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = $("search").value; showList("found"); update(); }, 150);
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") $("results").querySelector("button")?.focus();
  });
  $("results").addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("li")?.[step]?.querySelector("button");
    if (next) { next.focus(); event.preventDefault(); }
  });
  $("all-labels").addEventListener("click", () => pickLabels(data.labels.keys()));
  $("no-labels").addEventListener("click", () => pickLabels([]));
  $("back").addEventListener("click", backToList);
  $("zoom-in").addEventListener("click", () => zoom(0.7));
  $("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
  $("zoom-reset").addEventListener("click", resetView);
  for (const button of document.querySelectorAll("button[data-place]")) {
    button.addEventListener("click", () => choose(Number(button.dataset.place)));
  }
}
