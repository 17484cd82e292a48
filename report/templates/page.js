// Draws the figures when they come near the screen, and keeps arms, axis and theme the same in all.
"use strict";
(() => {
  const root = document.documentElement;
  const figures = [...document.querySelectorAll("figure")];
  const chips = [...document.querySelectorAll(".chip")];
  const hidden = new Set();
  const system = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  let axis = "steps";

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const ink = () => {
    const line = colour("--line");
    const look = { gridcolor: line, zerolinecolor: line, linecolor: line };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": colour("--soft"),
      "font.size": 12,
      "font.family": getComputedStyle(document.body).fontFamily,
      "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": colour("--soft"),
      "modebar.activecolor": colour("--ink"),
      "hoverlabel.bgcolor": colour("--card"),
      "hoverlabel.bordercolor": line,
      "hoverlabel.font.color": colour("--ink"),
    };
    for (const [key, value] of Object.entries(look)) {
      layout[`xaxis.${key}`] = value;
      layout[`yaxis.${key}`] = value;
    }
    return layout;
  };
  const plot = (figure) => figure.querySelector(".plot");
  const armOf = (trace) => (trace.meta || {}).arm;

  // The steps of each curve as tokens or seconds, which lie in the layout's meta once per arm.
  const place = (figure) => {
    const div = plot(figure);
    const axes = (div.layout.meta || {}).axes;
    if (!axes) return;
    const own = div.data.map((trace, i) => {
      const other = axis === "steps" ? null : (axes[armOf(trace)] || {})[axis];
      return other || figure.steps[i];
    });
    Plotly.update(div, { x: own }, { "xaxis.title.text": axis, "xaxis.autorange": true });
  };
  const show = (figure) => {
    const div = plot(figure);
    Plotly.restyle(div, { visible: div.data.map((trace) => !hidden.has(armOf(trace))) });
  };

  const draw = async (figure) => {
    if (figure.begun) return;
    figure.begun = true;
    const spec = JSON.parse(figure.querySelector("script").textContent);
    spec.layout.autosize = true;
    if (touch) spec.layout.dragmode = false; // a finger scrolls the page
    const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
      modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
    await Plotly.newPlot(plot(figure), spec.data, spec.layout, config);
    figure.steps = plot(figure).data.map((trace) => trace.x);
    await Plotly.relayout(plot(figure), ink());
    if (axis !== "steps") place(figure);
    if (hidden.size) show(figure);
    figure.dataset.drawn = "1";
    if (figures.every((f) => f.dataset.drawn)) root.dataset.drawn = "1";
  };
  const drawn = () => figures.filter((f) => f.dataset.drawn);

  const near = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "300px" });
  figures.forEach((figure) => near.observe(figure));
  const later = window.requestIdleCallback || ((f) => setTimeout(f, 50));
  const rest = () => {
    const next = figures.find((figure) => !figure.begun);
    if (next) draw(next).then(() => later(rest));
  };
  addEventListener("load", () => later(rest));

  // Arms: a click hides or shows one, a double click shows it alone, or all again.
  const refresh = () => {
    chips.forEach((c) => c.setAttribute("aria-pressed", String(!hidden.has(c.dataset.arm))));
    document.querySelectorAll("tr[data-arm]").forEach((row) =>
      row.classList.toggle("off", hidden.has(row.dataset.arm)));
    drawn().forEach(show);
  };
  chips.forEach((chip) => {
    const arm = chip.dataset.arm;
    chip.addEventListener("click", () => {
      if (!hidden.delete(arm)) hidden.add(arm);
      refresh();
    });
    chip.addEventListener("dblclick", () => {
      const alone = hidden.size === chips.length - 1 && !hidden.has(arm);
      hidden.clear();
      if (!alone) chips.forEach((c) => c !== chip && hidden.add(c.dataset.arm));
      refresh();
    });
    document.querySelectorAll("tr[data-arm]").forEach((row) => {
      if (row.dataset.arm === arm)
        row.style.setProperty("--arm", chip.querySelector("i").style.background);
    });
  });

  const buttons = [...document.querySelectorAll("[data-axis]")];
  buttons.forEach((button) => button.addEventListener("click", () => {
    axis = button.dataset.axis;
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    drawn().forEach(place);
  }));

  const repaint = () => drawn().forEach((figure) => Plotly.relayout(plot(figure), ink()));
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  system.addEventListener("change", repaint);
  document.querySelectorAll('nav a').forEach((link) => link.addEventListener("click", () => {
    const fold = document.querySelector(`${link.getAttribute("href")} > details`);
    if (fold) fold.open = true;
  }));
})();
