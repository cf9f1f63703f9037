"""Choosing what a figure shows: plain HTML inputs, and the one script of the page.

A trace with `meta={"instance": "2", "method": "model"}` is drawn while the inputs of its section agree with each of
its keys that an input exists for. An element with `data-when="instance=2"` is shown by the same rule.
"""

from collections.abc import Sequence

from mesaprobe.report.markup import Html, element

SCRIPT = """
"use strict";
(() => {
  // plotly's button that sends the data of a figure to a server is taken out.
  const config = {responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
    toImageButtonOptions: {format: "svg"}};

  // What the inputs of a section say: for each key, the set of chosen values.
  const chosen = section => {
    const state = {};
    for (const input of section.querySelectorAll("[data-key]")) {
      const values = state[input.dataset.key] ??= new Set();
      if (input.type !== "checkbox" || input.checked) values.add(input.value);
    }
    return state;
  };
  const agrees = (state, wanted) =>
    Object.entries(wanted).every(([key, value]) => !(key in state) || state[key].has(String(value)));
  const pairs = text => Object.fromEntries(text.split(" ").map(pair => pair.split("=")));

  const update = section => {
    const state = chosen(section);
    for (const item of section.querySelectorAll("[data-when]"))
      item.hidden = !agrees(state, pairs(item.dataset.when));
    for (const plot of section.querySelectorAll(".plot"))
      if (plot.data && plot.data.some(trace => trace.meta))
        Plotly.restyle(plot, {visible: plot.data.map(trace => agrees(state, trace.meta ?? {}))});
  };

  // A legend stacks its entries where the page is narrow; the figure grows so that its drawing keeps its height.
  const makeRoom = (box, figure) => {
    const entries = figure.data.filter(trace => trace.name && trace.showlegend !== false).length;
    if (figure.layout.showlegend === false || entries < 4 || box.clientWidth > 560) return;
    figure.layout.height = box.clientHeight + 19 * (entries - 2);
    box.style.height = `${figure.layout.height}px`;
  };
  // Long names at the side of a narrow figure are broken into lines, else they leave no room for what they name.
  const wrap = words => typeof words !== "string" || words.length < 24 || words.includes("<") ? words
    : words.split(" ").reduce((text, word) =>
      text.length - text.lastIndexOf("<br>") + word.length > 24 ? `${text}<br>${word}` : `${text} ${word}`);
  const breakNames = (box, figure) => {
    if (box.clientWidth > 560) return;
    for (const [name, axis] of Object.entries(figure.layout))
      for (const key of name.startsWith("yaxis") ? ["categoryarray", "ticktext"] : [])
        if (Array.isArray(axis[key])) axis[key] = axis[key].map(wrap);
    for (const trace of figure.data) if (Array.isArray(trace.y)) trace.y = trace.y.map(wrap);
  };

  const drawn = [...document.querySelectorAll("script[data-plot]")].map(script => {
    const figure = JSON.parse(script.textContent);
    const box = document.getElementById(script.dataset.plot);
    makeRoom(box, figure);
    breakNames(box, figure);
    // A low figure without room above its drawing would have the buttons on its first marks.
    const bare = figure.layout.height < 340 && figure.layout.margin?.t < 20;
    const own = {...config, displayModeBar: bare ? false : "hover"};
    return Plotly.newPlot(script.dataset.plot, figure.data, figure.layout, own);
  });
  Promise.all(drawn).then(() => {
    for (const section of document.querySelectorAll("section")) {
      if (!section.querySelector("[data-key]")) continue;
      section.addEventListener("change", () => update(section));
      update(section);
    }
  });

  // On a phone the contents would push the verdict out of sight; they open on a touch.
  for (const contents of document.querySelectorAll("nav details")) contents.open = window.innerWidth >= 1120;

  // A printed page is narrower than the window.
  const fit = () => document.querySelectorAll(".plot").forEach(plot => Plotly.Plots.resize(plot));
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
})();
"""


def menu(key: str, title: str, options: Sequence[tuple[str, str]]) -> Html:
    """A drop-down list: one (value, words) of `options` is chosen, at first the first."""
    choices = (element("option", words, value=value) for value, words in options)
    return element("label", title, " ", element("select", *choices, data_key=key))


def switch(
    key: str, value: str, words: str, *, on: bool = True, swatch: str | None = None, dash: str = "solid"
) -> Html:
    """A box to tick; with a `swatch` colour it doubles as the legend entry of what it shows."""
    sample = element("span", class_=f"swatch {dash}", style=f"border-color:{swatch}") if swatch else ""
    return element("label", element("input", type="checkbox", data_key=key, value=value, checked=on), sample, words)


def controls(title: str, *inputs: Html) -> Html:
    """A named group of inputs; it governs the figures of the section in which it stands."""
    return element("fieldset", element("legend", title), *inputs, class_="controls")
