"use strict";
// Everything the page shows is in the JSON block before this script; nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 200; // category rows added at a time
const state = { groups: new Set([...Object.keys(data.groups), ""]), errors: new Set(data.errors), runs: new Set(data.runs.keys()), text: "", sort: "effect", down: true, rows: PAGE };
const body = document.querySelector("#categories tbody");
const GROUPS = Object.keys(data.groups);

function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") node.textContent = value;
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const shown = (one) => !data.errors.length || state.errors.has(one.error);
const number = (value) => (value === null || value === undefined ? "n/a" : value.toFixed(1));

function keyOf(category, key) {
  if (key === "name") return category.name;
  if (key === "group") return GROUPS.indexOf(category.group);
  if (key.startsWith("count")) return category.counts[Number(key.slice(5))];
  if (key.startsWith("value")) return category.values[Number(key.slice(5))];
  return category[key];
}

function visible() {
  const chosen = data.categories.filter((category) =>
    state.groups.has(category.group) && category.name.toLowerCase().includes(state.text) &&
    (state.errors.size === data.errors.length || category.examples.some((one) => shown(one) && state.runs.has(one.run))));
  const order = state.down ? -1 : 1;
  return chosen.sort((a, b) => {
    const x = keyOf(a, state.sort), y = keyOf(b, state.sort);
    if (x === y) return a.name < b.name ? -1 : 1;
    if (x === null || x === undefined) return 1; // what was not measured comes last either way
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * order;
  });
}

function thumbnail(one) {
  const box = element("div", { class: "thumb", "data-error": one.error },
    element("img", { src: one.image, alt: one.title, loading: "lazy" }),
    element("b", { text: one.title }), element("br"));
  if (one.truth) box.append(element("span", { class: "truth", text: "annotated: " + one.truth }), element("br"));
  if (one.prediction) {
    box.append(element("span", { class: "prediction", text: "predicted: " + one.prediction + " " + one.score.toFixed(2) }), element("br"));
  }
  box.append(one.source);
  return box;
}

function drill(category) {
  const cell = element("td", { colspan: String(3 + data.counts + data.runs.length) });
  data.runs.forEach((name, run) => {
    const chosen = category.examples.filter((one) => one.run === run && state.runs.has(run) && shown(one));
    if (!chosen.length) return;
    cell.append(element("div", { class: "run-name", text: name }),
      element("div", { class: "thumbs" }, ...chosen.map(thumbnail)));
  });
  if (!cell.childNodes.length) {
    cell.append(element("p", { text: category.drawn ? "No such errors." : "Not among those that were drawn." }));
  }
  return element("tr", { class: "drill" }, cell);
}

function row(category) {
  const cells = [
    element("td", { class: "words", text: category.name }), element("td", { class: "words", text: data.groups[category.group] || "" }),
    ...category.counts.map((value) => element("td", { text: value === null ? "-" : String(value) })),
    ...category.values.map((value) => element("td", { text: number(value) })),
    element("td", { text: category.effect === null ? "-" : category.effect.toFixed(1) }),
  ];
  const line = element("tr", { class: "category", "data-name": category.name }, ...cells);
  line.addEventListener("click", () => {
    if (line.classList.toggle("open")) line.after(drill(category));
    else line.nextSibling.remove();
  });
  return line;
}

function show() {
  const chosen = visible();
  const open = new Set([...body.querySelectorAll("tr.open")].map((line) => line.dataset.name));
  body.replaceChildren(...chosen.slice(0, state.rows).map(row));
  for (const line of body.querySelectorAll("tr.category")) if (open.has(line.dataset.name)) line.click();
  document.getElementById("count").textContent = chosen.length + " of " + data.categories.length;
  document.getElementById("more").hidden = chosen.length <= state.rows;
}

function toggles(name, set) {
  for (const box of document.querySelectorAll(`input[name="${name}"]`)) {
    box.addEventListener("change", () => {
      if (box.checked) set.add(box.value); else set.delete(box.value);
      show();
    });
  }
}

toggles("group", state.groups);
toggles("error", state.errors);
document.getElementById("search").addEventListener("input", (event) => { state.text = event.target.value.toLowerCase(); show(); });
document.getElementById("more").addEventListener("click", () => { state.rows += PAGE; show(); });
for (const head of document.querySelectorAll("#categories th[data-key]")) {
  head.addEventListener("click", () => {
    state.down = state.sort === head.dataset.key ? !state.down : true;
    state.sort = head.dataset.key;
    show();
  });
}
for (const box of document.querySelectorAll('input[name="run"]')) {
  box.addEventListener("change", () => {
    for (const mark of document.querySelectorAll(`[data-run="${box.value}"]`)) mark.style.display = box.checked ? "" : "none";
    if (box.checked) state.runs.add(Number(box.value)); else state.runs.delete(Number(box.value));
    show();
  });
}
show();
