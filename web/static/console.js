// What the pages gain with scripts: local times, copying, selecting all, charts from tables, shortcuts. All work without.
"use strict";

(() => {
  const language = document.documentElement.lang;
  const absolute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });

  // Times come in UTC; readers think in their own time zone.
  function localizeTimes(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const text = absolute.format(new Date(element.dateTime));
      if ("relative" in element.dataset) element.title = text;
      else {
        element.title = element.title || element.textContent;
        element.textContent = text;
      }
    }
  }

  // Over plain HTTP on a LAN there is no navigator.clipboard.
  async function copy(text) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // There is none, or the browser refuses it: copy by selection.
    }
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }

  function prepareCopying(root) {
    for (const button of root.querySelectorAll("button[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await copy(button.dataset.copy);
        button.textContent = button.dataset.done;
      });
    }
  }

  function prepareSelection(root) {
    for (const box of root.querySelectorAll("input[data-select-all]")) {
      box.addEventListener("change", () => {
        for (const other of box.form.elements[box.dataset.selectAll]?.length === undefined
          ? [box.form.elements[box.dataset.selectAll]]
          : box.form.elements[box.dataset.selectAll]) other.checked = box.checked;
      });
    }
  }

  // The table is the truth; a chart is drawn from its cells and adds nothing to them.
  function drawCharts(root) {
    if (!window.Chart) return;
    const style = getComputedStyle(document.documentElement);
    const probe = (name) => {
      const element = document.createElement("span");
      element.className = name;
      document.body.append(element);
      const colour = getComputedStyle(element).color;
      element.remove();
      return colour;
    };
    const colours = [probe("good"), probe("bad")];
    Chart.defaults.color = probe("faint");
    Chart.defaults.font.family = style.fontFamily;
    for (const table of root.querySelectorAll("table[data-chart]")) {
      const rows = [...table.tBodies[0].rows];
      const heads = [...table.tHead.rows[0].cells];
      if (rows.length < 2) continue;
      const series = heads.filter((cell) => "series" in cell.dataset);
      const box = document.createElement("div");
      box.className = "chart";
      box.setAttribute("aria-hidden", "true");
      const canvas = document.createElement("canvas");
      box.append(canvas);
      table.closest(".wide").before(box);
      new Chart(canvas, {
        type: table.dataset.chart,
        data: {
          labels: rows.map((row) => row.cells[0].textContent.trim()),
          datasets: series.map((cell, index) => ({
            label: cell.textContent.replace(/[▲▼]/, "").trim(),
            data: rows.map((row) => Number(row.cells[cell.cellIndex].textContent.replace(/[^\d.-]/g, ""))),
            backgroundColor: colours[index],
            maxBarThickness: 28,
          })),
        },
        options: { animation: false, maintainAspectRatio: false, plugins: { legend: { position: "bottom" } } },
      });
    }
  }

  function prepare(root) {
    localizeTimes(root);
    prepareCopying(root);
    prepareSelection(root);
  }

  // `/` goes to the search field, `g` and a letter to a page.
  const pages = { o: "", a: "accounts", q: "queue", k: "keys", u: "usage", r: "requests", p: "pools", s: "system" };
  let goes = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "/") {
      document.querySelector("input[type=search]")?.focus();
      event.preventDefault();
    } else if (goes && event.key in pages) location.href = `/admin/${pages[event.key]}`;
    goes = event.key === "g";
  });

  // A hidden tab asks for nothing.
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:after:swap", () => prepare(document));

  prepare(document);
  drawCharts(document);
})();
