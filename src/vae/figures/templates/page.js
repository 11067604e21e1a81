"use strict";
const tabs = [...document.querySelectorAll("nav a")];
const panels = [...document.querySelectorAll("main section")];
const wide = (element) => element.offsetParent !== null;

// Tabs: the fragment of the address is the open one.
document.body.classList.add("scripted");
document.querySelector("nav").setAttribute("role", "tablist");
tabs.forEach((tab, i) => {
  tab.setAttribute("role", "tab");
  // The id differs from the fragment, so that the browser does not scroll past the title.
  panels[i].id = "panel-" + panels[i].id;
  tab.setAttribute("aria-controls", panels[i].id);
  panels[i].setAttribute("role", "tabpanel");
});

function show(index) {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", i === index);
    tab.tabIndex = i === index ? 0 : -1;
    panels[i].hidden = i !== index;
  });
  // A chart that was drawn while hidden has no width yet.
  if (window.Plotly) panels[index].querySelectorAll(".plotly-graph-div").forEach((chart) => Plotly.Plots.resize(chart));
  tabs[index].scrollIntoView({ block: "nearest", inline: "nearest" });
  scrollTo(0, 0);
  sharpen();
}
function fromAddress() {
  const index = panels.findIndex((panel) => panel.id === "panel-" + location.hash.slice(1));
  show(Math.max(index, 0));
}
function open(index) {
  history.pushState(null, "", tabs[index].hash);
  show(index);
}
tabs.forEach((tab, i) => {
  tab.addEventListener("click", (event) => { event.preventDefault(); open(i); });
  tab.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = (moves[event.key] + tabs.length) % tabs.length;
    open(next);
    tabs[next].focus();
  });
});
addEventListener("hashchange", fromAddress);
addEventListener("popstate", fromAddress);

// Pixels stay squares unless the picture is reduced.
function sharpen() {
  document.querySelectorAll(".picture img").forEach((image) => {
    image.classList.toggle("crisp", image.clientWidth >= Number(image.getAttribute("width")));
  });
}
addEventListener("resize", sharpen);

// Enlarging: by the largest integer factor that fits, at least 1.
const dialog = document.querySelector("dialog");
const links = [...document.querySelectorAll(".picture a")];
let current = -1;
function enlarge(index) {
  current = index;
  const small = links[index].querySelector("img");
  const caption = links[index].parentElement.querySelector("figcaption");
  const large = dialog.querySelector("img");
  const [width, height] = ["width", "height"].map((side) => Number(small.getAttribute(side)));
  const factor = Math.max(1, Math.floor(Math.min((innerWidth - 32) / width, (innerHeight - 110) / height)));
  large.src = small.src;
  large.alt = small.alt;
  large.style.width = width * factor + "px";
  dialog.querySelector("h3").textContent = caption.querySelector("h3").textContent;
  dialog.querySelector("p").textContent = caption.querySelector("p")?.textContent ?? "";
  if (!dialog.open) dialog.showModal();
  dialog.scrollTo(0, 0);
}
links.forEach((link, i) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  enlarge(i);
}));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const near = links.map((link, i) => i).filter((i) => wide(links[i]));
  const next = near[near.indexOf(current) + step];
  if (step && next !== undefined) { event.preventDefault(); enlarge(next); }
});

// Sliders: the window moves over the sprite.
document.querySelectorAll(".slider").forEach((slider) => {
  const [select, range, output] = ["select", "input", "output"].map((name) => slider.querySelector(name));
  const [image, steps] = [slider.querySelector("img"), slider.querySelectorAll("datalist option")];
  const { rows, columns } = slider.dataset;
  const title = image.alt;
  function move() {
    const step = steps[range.value].label;
    image.style.transform = `translate(${-100 * range.value / columns}%, ${-100 * select.selectedIndex / rows}%)`;
    image.alt = `${title}. ${select.value}, ${step}`;
    output.textContent = step;
    range.setAttribute("aria-valuetext", step);
  }
  select.addEventListener("change", move);
  range.addEventListener("input", move);
  move(); // A browser may keep the choice of before a reload.
});

// Decks: filter and sort the cards.
document.querySelectorAll(".card-deck").forEach((deck) => {
  const form = deck.querySelector("form");
  const list = deck.querySelector(".deck");
  const cards = [...list.children];
  const text = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const { kind, group, sort, order } = form.elements;
  const number = (card, name) => {
    const cell = [...card.querySelectorAll("dd")].find((value) => value.dataset.name === name);
    return cell ? parseFloat(cell.dataset.value) : NaN;
  };
  function arrange() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/);
    const visible = cards.filter((card) => {
      card.hidden = Boolean((kind?.value && card.dataset.kind !== kind.value)
        || (group?.value && card.dataset.group !== group.value)
        || !words.every((word) => text.get(card).includes(word)));
      return !card.hidden;
    });
    const values = new Map(cards.map((card, i) => [card, sort.value ? number(card, sort.value) : i]));
    const sign = sort.value && order.getAttribute("aria-pressed") !== "true" ? -1 : 1;
    // Cards without the number go last in both orders.
    list.append(...cards.toSorted((a, b) => {
      const [first, second] = [values.get(a), values.get(b)];
      return isNaN(first) - isNaN(second) || sign * (first - second) || 0;
    }));
    order.disabled = !sort.value;
    form.querySelector("output").textContent = `${visible.length} of ${cards.length}`;
  }
  form.addEventListener("input", arrange);
  form.addEventListener("submit", (event) => event.preventDefault());
  order.addEventListener("click", () => {
    const ascending = order.getAttribute("aria-pressed") !== "true";
    order.setAttribute("aria-pressed", ascending);
    order.textContent = ascending ? "ascending" : "descending";
    arrange();
  });
  arrange();
});

// Copy lines; without access to the clipboard, select them.
document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", () => {
  const lines = button.parentElement.querySelector("code");
  const showResult = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
  const selectLines = () => {
    getSelection().selectAllChildren(lines);
    showResult("Selected");
  };
  if (navigator.clipboard) navigator.clipboard.writeText(lines.textContent).then(() => showResult("Copied"), selectLines);
  else selectLines();
}));

// Charts have the colours of the page, light or dark.
function paint() {
  const style = getComputedStyle(document.documentElement);
  const [text, grid] = ["--text", "--grid"].map((name) => style.getPropertyValue(name).trim());
  document.querySelectorAll(".plotly-graph-div").forEach((chart) => {
    const changes = { "font.color": text };
    Object.keys(chart.layout).filter((key) => /^[xy]axis/.test(key)).forEach((key) => {
      changes[key + ".gridcolor"] = grid;
      changes[key + ".zerolinecolor"] = grid;
    });
    Plotly.relayout(chart, changes);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
fromAddress();
paint();
