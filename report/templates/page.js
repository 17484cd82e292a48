// Draws the figures when they come near the screen, keeps arms, axis and theme the same in all, and
// saves tables as files.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const figures = all("figure.plotted");
  const chips = all(".chip");
  const hidden = new Set();
  const system = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const NARROW = 480; // px: no room for names beside the curves
  let axis = "steps";
  root.classList.add("scripted");

  // What is packed: gzip in base64.
  const unpack = (element) => {
    const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  // plotly.js, unpacked when the first figure needs it.
  let unpacked = null;
  const plotly = () => {
    unpacked = unpacked || (async () => {
      const script = document.createElement("script");
      script.textContent = await unpack(document.getElementById("plotly"));
      document.head.append(script);
    })();
    return unpacked;
  };

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const ink = (axes) => {
    const line = colour("--line");
    const look = { gridcolor: line, zerolinecolor: line, linecolor: line };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": colour("--soft"),
      "font.size": 12,
      "font.family": getComputedStyle(document.body).fontFamily,
      "hoverlabel.bgcolor": colour("--card"),
      "hoverlabel.bordercolor": line,
      "hoverlabel.font.color": colour("--ink"),
    };
    for (const axis of axes.filter((name) => /^[xy]axis\d*$/.test(name))) {
      for (const [key, value] of Object.entries(look)) layout[`${axis}.${key}`] = value;
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
    const layout = {};
    (div.layout.annotations || []).forEach((label, i) => {
      layout[`annotations[${i}].visible`] = !hidden.has(label.name);
    });
    Plotly.update(div, { visible: div.data.map((trace) => !hidden.has(armOf(trace))) }, layout);
  };

  const folded = (figure) => figure.closest("details:not([open])");
  const draw = async (figure) => {
    if (figure.begun) return;
    figure.begun = true;
    await plotly();
    const spec = JSON.parse(await unpack(figure.querySelector("script")));
    spec.layout.autosize = true;
    if (touch) spec.layout.dragmode = false; // a finger scrolls the page
    if (figure.clientWidth < NARROW && spec.layout.annotations) {
      delete spec.layout.annotations;
      spec.layout.margin.r = 16;
    }
    const config = { responsive: true, displayModeBar: false };
    await Plotly.newPlot(plot(figure), spec.data, spec.layout, config);
    figure.steps = plot(figure).data.map((trace) => trace.x);
    await Plotly.relayout(plot(figure), ink(Object.keys(plot(figure).layout)));
    if (axis !== "steps") place(figure);
    if (hidden.size) show(figure);
    figure.dataset.drawn = "1";
  };
  const drawn = () => figures.filter((figure) => figure.dataset.drawn);

  if (typeof DecompressionStream === "undefined") {
    figures.forEach((figure) => (plot(figure).textContent = "The figures need a browser of 2023 or later."));
  } else {
    const near = new IntersectionObserver(
      (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
      { rootMargin: "300px" });
    figures.forEach((figure) => near.observe(figure));
    const later = window.requestIdleCallback || ((f) => setTimeout(f, 50));
    const rest = () => {
      const next = figures.find((figure) => !figure.begun && !folded(figure));
      if (next) draw(next).then(() => later(rest));
    };
    addEventListener("load", () => later(rest));
    all("#figures details").forEach((fold) => fold.addEventListener("toggle", () => later(rest)));
  }

  // Arms: a click hides or shows one, a double click shows it alone, or all again.
  const refresh = () => {
    chips.forEach((c) => c.setAttribute("aria-pressed", String(!hidden.has(c.dataset.arm))));
    all("tr[data-arm], .line[data-arm]").forEach((row) =>
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
  });

  const buttons = all("[data-axis]");
  buttons.forEach((button) => button.addEventListener("click", () => {
    axis = button.dataset.axis;
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    drawn().forEach(place);
  }));

  const repaint = () => drawn().forEach((figure) => {
    const div = plot(figure);
    Plotly.relayout(div, ink(Object.keys(div.layout)));
  });
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  system.addEventListener("change", repaint);
  all('a[href^="#"]').forEach((link) => link.addEventListener("click", () => {
    const fold = document.querySelector(`${link.getAttribute("href")} > details`);
    if (fold) fold.open = true;
  }));

  // Tables: what lies beyond the edge is said; a table that fits needs no stop of the keyboard.
  const announce = (table) => {
    const scroll = table.querySelector(".scroll");
    const edge = scroll.getBoundingClientRect().right;
    const beyond = all("thead th", table).filter((th) => th.getBoundingClientRect().right > edge + 8);
    const names = beyond.map((th) => th.textContent).join(", ");
    const more = beyond.length === 1 ? "1 more column" : `${beyond.length} more columns`;
    table.querySelector(".more").textContent = beyond.length ? `${more} at the right: ${names} →` : "";
    if (scroll.scrollWidth > scroll.clientWidth) scroll.tabIndex = 0;
    else scroll.removeAttribute("tabindex");
  };
  const tables = all(".table");
  const watch = new ResizeObserver((entries) => entries.forEach((e) => announce(e.target)));
  tables.forEach((table) => {
    watch.observe(table);
    table.querySelector(".scroll").addEventListener("scroll", () => announce(table), { passive: true });
  });

  const text = (cell) => cell.textContent.replace(/\s+/g, " ").trim();
  const cells = (table) => all("tr", table).map((row) => [...row.cells].map(text));
  const csvCell = (word) => {
    const plain = word.replace(/−/g, "-").replace(/^–$/, "");
    const safe = /^[=+@-]/.test(plain) && isNaN(plain) ? `'${plain}` : plain; // no formula
    return /[",]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "−": "$-$", "–": "--", "∞": "$\\infty$", "±": "$\\pm$", "<": "$<$", ">": "$>$", "×": "$\\times$" };
  const texCell = (word) => word.replace(/[\\~^−–∞±<>×]|[&%$#_{}]/g, (sign) => TEX[sign] || `\\${sign}`);
  const saved = {
    csv: (table) => cells(table).map((row) => row.map(csvCell).join(",")).join("\n") + "\n",
    tex: (table) => {
      const [head, ...rows] = cells(table).map((row) => `${row.map(texCell).join(" & ")} \\\\`);
      const kinds = all("thead th", table).map((th) => (th.classList.contains("number") ? "r" : "l"));
      return [`% \\usepackage{booktabs}`, `% ${text(table.querySelector("caption"))}`,
        `\\begin{tabular}{${kinds.join("")}}`, "\\toprule", head, "\\midrule", ...rows, "\\bottomrule",
        "\\end{tabular}", ""].join("\n");
    },
  };
  all("[data-save]").forEach((button) => button.addEventListener("click", () => {
    const table = button.closest(".table");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([saved[button.dataset.save](table)], { type: "text/plain" }));
    link.download = `${document.title}-${table.dataset.name}.${button.dataset.save}`.replace(/[^\w.-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }));
})();
