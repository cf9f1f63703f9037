"use strict";
// Fills the explorer for the state that its inputs name. All words are set as text, never as markup.
for (const app of document.querySelectorAll(".explorer")) {
  const part = name => app.querySelector(`[data-part="${name}"]`);
  const data = JSON.parse(part("data").textContent);
  const instanceInput = part("instance"), stepInput = part("step"), attentionInput = part("attention-of");
  let compared = null;  // city that is compared with the network's choice; null: the usual one

  const create = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "g", "line", "circle", "text", "title", "path"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const percent = thousandths => thousandths === 0 ? "0" : thousandths < 10 ? `${(thousandths / 10).toFixed(1)}%`
    : `${Math.round(thousandths / 10)}%`;
  const number = value => value === null ? "–" : String(value).replace("-", "−");

  // The state: its prefix, candidates, choice, and the city that the choice is compared with.
  const current = () => {
    const instance = data.instances[+instanceInput.value], step = +stepInput.value, state = instance.states[step];
    const prefix = instance.tour.slice(0, step + 1), here = prefix[step], chosen = instance.tour[step + 1];
    const free = state.values.map((_, city) => city).filter(city => state.values[city] !== null);
    const best = Math.min(...free.map(city => state.values[city]));
    const regret = city => state.values[city] - best;
    const order = free.filter(city => city !== chosen).sort((a, b) => state.values[a] - state.values[b] || a - b);
    const usual = (regret(chosen) > 0 ? order[0] : order.find(city => regret(city) > 0)) ?? order[0];
    const other = free.includes(compared) && compared !== chosen ? compared : usual;
    return {instance, step, state, prefix, here, chosen, free, best, regret, other};
  };

  const words = s => {
    const verdict = s.regret(s.chosen) === 0 ? "which is optimal"
      : `which costs ${number(s.regret(s.chosen))} more than city ${s.free.find(city => s.regret(city) === 0)}`;
    const kind = data.decisions[s.step] ? "" : " This step does not count as a decision.";
    return `Instance ${+instanceInput.value + 1}, step ${s.step + 1}: the tour so far is ${s.prefix.join(" → ")}. `
      + `The network goes to city ${s.chosen} (probability ${percent(s.state.probabilities[s.chosen])}), ${verdict}.`
      + kind;
  };

  const drawing = s => {
    const at = city => s.instance.points[city].map((x, axis) => 30 + 340 * (axis ? 1 - x : x));
    const edge = (u, v, kind) => {
      const [x1, y1] = at(u), [x2, y2] = at(v);
      const line = create("line", {x1, y1, x2, y2, class: kind});
      line.append(create("title", {}, `edge ${u}–${v}: weight ${s.instance.weights[u][v]}`));
      return line;
    };
    const along = (cities, kind) => cities.slice(1).map((city, i) => edge(cities[i], city, kind));
    const rest = city => [...s.state.completions[city].slice(s.step), 0];
    const svg = create("svg", {viewBox: "0 0 400 400", role: "img", "aria-label":
      `Drawing: tour so far ${s.prefix.join(", ")}; cheapest way on through city ${s.chosen}: `
      + `${rest(s.chosen).join(", ")}; through city ${s.other}: ${rest(s.other).join(", ")}`});
    svg.append(...along(rest(s.other), "other"), ...along(rest(s.chosen), "chosen"), ...along(s.prefix, "tour"));
    const looks = attentionInput && attentionInput.value
      ? attentionInput.value.split(".").reduce((part, index) => part[+index], s.state.attention) : null;
    s.instance.points.forEach((_, city) => {
      const [cx, cy] = at(city), free = s.free.includes(city);
      const kinds = ["city", free ? "free" : "visited", city === s.here ? "here" : "", city === s.chosen ? "pick" : "",
        city === s.other ? "rival" : ""];
      const group = create("g", {class: kinds.join(" ")});
      if (looks) group.append(create("circle", {cx, cy, r: 13 + 0.03 * looks[city], class: "halo"}));
      group.append(create("circle", {cx, cy, r: 12, class: "disc"}));
      group.append(create("text", {x: cx, y: cy + 4.5, "text-anchor": "middle"}, String(city)));
      group.append(create("title", {}, `city ${city}${free ? "" : ", visited"}`
        + (looks ? `, attention ${percent(looks[city])}` : "")));
      if (free && city !== s.chosen) group.addEventListener("click", () => { compared = city; show(); });
      svg.append(group);
    });
    return svg;
  };

  const candidates = s => s.free.slice().sort((a, b) => s.state.values[a] - s.state.values[b] || a - b).map(city => {
    const pick = city === s.chosen;
    const radio = create("input", {type: "radio", name: "explorer-compared", value: city,
      "aria-label": `Compare city ${city} with the network's choice`});
    radio.checked = city === s.other;
    radio.addEventListener("change", () => { compared = city; show(`input[value="${city}"]`); });
    const share = s.state.probabilities[city];
    const bar = create("span", {class: "bar", style: `width:${share / 10}%`});
    return create("tr", {class: pick ? "pick" : city === s.other ? "rival" : ""},
      create("td", {class: "number"}, pick ? "choice" : radio),
      create("th", {scope: "row", class: "words"}, String(city)),
      create("td", {class: "number"}, number(s.instance.weights[s.here][city])),
      create("td", {class: "number"}, number(s.state.values[city])),
      create("td", {class: "number"}, number(s.regret(city))),
      create("td", {class: "number share"}, bar, create("span", {}, percent(share))));
  });

  // A table whose cells are shaded by their value in thousandths; `titles` name the rows.
  const heat = (head, body, s, titles, rows) => {
    const cities = s.instance.points.map((_, city) => city);
    const mark = city => city === s.chosen ? " pick" : s.free.includes(city) ? "" : " visited";
    part(head).replaceChildren(create("tr", {}, create("th", {scope: "col"}, ""),
      ...cities.map(city => create("th", {scope: "col", class: `number${mark(city)}`}, String(city)))));
    part(body).replaceChildren(...rows.map((row, i) => create("tr", {},
      create("th", {scope: "row", class: "words"}, titles[i]),
      ...row.map((share, city) => create("td", {class: `number${mark(city)}`, style: `--share:${share / 10}%`},
        percent(share))))));
  };

  const show = focus => {
    const s = current();
    part("words").textContent = words(s);
    part("drawing").replaceChildren(drawing(s));
    part("note").textContent = s.instance.note;
    part("candidates").replaceChildren(...candidates(s));
    const lost = 1000 - s.free.reduce((sum, city) => sum + s.state.probabilities[city], 0);
    part("rest").textContent = `Visited cities get ${percent(Math.max(0, lost))} of the probability. `
      + "Choose a row or click a city to compare it with the network's choice.";
    if (s.state.lens) heat("lens-head", "lens", s, data.layers, s.state.lens);
    if (s.state.attention) {
      const titles = s.state.attention.flatMap((heads, layer) => heads.map((_, head) => `layer ${layer}, head ${head}`));
      heat("attention-head", "attention", s, titles, s.state.attention.flat());
    }
    part("back").disabled = s.step === 0;
    part("on").disabled = s.step === stepInput.options.length - 1;
    if (focus) app.querySelector(focus)?.focus();
  };

  const move = by => { stepInput.value = String(+stepInput.value + by); compared = null; show(); };
  part("back").addEventListener("click", () => move(-1));
  part("on").addEventListener("click", () => move(1));
  for (const input of [instanceInput, stepInput])
    input.addEventListener("change", () => { compared = null; show(); });
  attentionInput?.addEventListener("change", () => show());
  show();
}
