// What the pages gain with scripts: local times, copying, selecting all, charts from tables, shortcuts. All work without.
"use strict";

(() => {
  const language = document.documentElement.lang;
  const absolute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(language, { timeStyle: "short" });

  // Times come in UTC; readers think in their own time zone.
  function localizeTimes(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const text = absolute.format(new Date(element.dateTime));
      if ("relative" in element.dataset) element.title = text;
      else if ("clock" in element.dataset) element.textContent = clock.format(new Date(element.dateTime));
      else if ("hour" in element.dataset) element.textContent = String(new Date(element.dateTime).getHours()).padStart(2, "0");
      else {
        element.title = element.title || element.textContent;
        element.textContent = "clock" in element.dataset ? clock.format(new Date(element.dateTime)) : text;
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

  // Buttons that copy are of no use without scripts, and appear with them.
  function showCopyButtons(root) {
    for (const button of root.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await copy(button.dataset.copy);
    button.textContent = button.dataset.done;
  });

  document.addEventListener("change", (event) => {
    const box = event.target.closest("input[data-select-all]");
    if (!box) return;
    for (const other of box.form.elements) if (other.name === box.dataset.selectAll) other.checked = box.checked;
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

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
    Chart.defaults.color = probe("faint");
    Chart.defaults.font.family = style.fontFamily;
    const colours = [0, 1, 2, 3].map((number) => probe(`series-${number}`));
    for (const table of root.querySelectorAll("table[data-chart]")) {
      const rows = [...table.tBodies[0].rows];
      if ("newestFirst" in table.dataset) rows.reverse();
      const series = [...table.tHead.rows[0].cells].filter((cell) => "series" in cell.dataset);
      if (rows.length < 2) continue;
      const charts = document.createElement("div");
      charts.className = "charts";
      charts.setAttribute("aria-hidden", "true");
      table.closest(".wide").before(charts);
      // What has the same unit shares a chart.
      for (const group of new Set(series.map((cell) => cell.dataset.series))) {
        drawChart(charts, table.dataset.chart, rows, series.filter((cell) => cell.dataset.series === group), colours);
      }
    }
  }

  // A cell without a figure is a gap, not a zero.
  function readFigure(cell) {
    const digits = cell.textContent.replace(/[^\d.-]/g, "");
    return digits === "" || digits === "-" ? null : Number(digits);
  }

  // Times are in short: of one day and a half at most the hours, else the days.
  function labelRows(rows) {
    const times = rows.map((row) => row.cells[0].querySelector("time[datetime]")?.dateTime);
    if (!times.every(Boolean)) return rows.map((row) => row.cells[0].textContent.trim());
    const dates = times.map((time) => new Date(time));
    const span = Math.abs(dates.at(-1) - dates[0]);
    const short = new Intl.DateTimeFormat(
      language,
      span < 36 * 3600 * 1000 ? { hour: "numeric", minute: "2-digit" } : { month: "short", day: "numeric" },
    );
    return dates.map((date) => short.format(date));
  }

  function drawChart(parent, type, rows, series, colours) {
    const box = document.createElement("div");
    box.className = "chart";
    const canvas = document.createElement("canvas");
    box.append(canvas);
    parent.append(box);
    new Chart(canvas, {
      type,
      data: {
        labels: labelRows(rows),
        datasets: series.map((cell, index) => ({
          label: cell.textContent.replace(/[▲▼]/, "").trim(),
          data: rows.map((row) => readFigure(row.cells[cell.cellIndex])),
          backgroundColor: colours[index],
          borderColor: colours[index],
          borderWidth: type === "line" ? 1.5 : 0,
          pointRadius: 0,
          maxBarThickness: 28,
        })),
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        scales: { y: { beginAtZero: true } },
        plugins: { legend: { position: "bottom" } },
      },
    });
  }

  function prepare(root) {
    localizeTimes(root);
    showCopyButtons(root);
  }

  // `/` goes to the search field, `g` and a letter to a page.
  const pages = { o: "", a: "accounts", q: "queue", c: "capacity", k: "keys", u: "usage", r: "requests", t: "playground", p: "pools", e: "events", s: "system" };
  let goes = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "/") {
      document.querySelector("input[type=search]")?.focus();
      event.preventDefault();
    } else if (goes && event.key in pages) location.href = `/admin/${pages[event.key]}`;
    goes = event.key === "g";
  });

  // A hidden tab asks for nothing. Its stream is closed by hx-sse, and here if it was opened meanwhile.
  let isSettled = false;
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden || isSettled) event.preventDefault();
  });
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (document.hidden || isSettled) event.detail.connection.cancelled = true;
  });
  document.addEventListener("htmx:sse:before:message", (event) => {
    if (!document.hidden) return;
    event.detail.cancelled = true;
    event.detail.connection.reader?.cancel();
  });

  // A page that is left may be kept for going back, with a request on its way; when it is shown again it connects.
  window.addEventListener("pagehide", () => {
    const element = document.querySelector("#live");
    if (element) htmx.trigger(element, "htmx:abort");
  });

  // Whether what a live page shows is of now.
  function showLiveState(state) {
    const element = document.querySelector("#live-state");
    if (!element || element.dataset.state === state) return;
    element.hidden = false;
    element.dataset.state = state;
    element.className = `state ${state === "live" ? "active" : "cooling"}`;
    element.textContent = element.dataset[state];
  }
  document.addEventListener("htmx:sse:after:message", () => showLiveState("live"));
  document.addEventListener("htmx:sse:error", () => showLiveState("lost"));
  // What the page shows will change no more.
  document.addEventListener("settled", () => {
    isSettled = true;
    document.querySelector(".live-controls")?.remove();
  });
  // The page leads to the login, and from there back.
  document.addEventListener("logged-out", () => location.reload());

  document.addEventListener("htmx:after:swap", () => prepare(document));

  prepare(document);
  drawCharts(document);
})();
