// The tape: accounts by seconds, drawn from the rows of its table, and continued by what the page's stream sends.
"use strict";

(() => {
  const LABEL_WIDTH = 130, AXIS_HEIGHT = 16, MIN_WIDTH = 480, MARGIN = 18, TICK_SECONDS = 30, RELOAD_PAUSE_MS = 5000;
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "medium" });
  let tape = null, reloadedAt = 0;

  function read() {
    const section = document.querySelector("#tape");
    const canvas = section?.querySelector("canvas");
    if (!canvas) return null;
    const rows = [...section.querySelectorAll("tr[data-letters]")].map((row) => ({ row, letters: [...row.dataset.letters] }));
    canvas.parentElement.hidden = section.querySelector("#tape-point").hidden = false;
    return { section, canvas, rows, begins: Number(section.dataset.begins), seconds: Number(section.dataset.seconds) };
  }

  // Few accounts get names, many get thin rows.
  const findRowHeight = (count) => (count <= 40 ? 14 : count <= 150 ? 6 : 3);

  function measure() {
    const height = findRowHeight(tape.rows.length), labels = height >= 12 ? LABEL_WIDTH : 0;
    const width = Math.max(MIN_WIDTH, tape.canvas.parentElement.clientWidth - MARGIN);
    return { height, labels, width, column: (width - labels) / tape.seconds };
  }

  function readColours() {
    const swatches = [...tape.section.querySelectorAll(".legend li")];
    return Object.fromEntries(
      swatches.map((item) => [item.dataset.letter, getComputedStyle(item.querySelector(".swatch")).backgroundColor]),
    );
  }

  function draw() {
    const { canvas, rows, begins, seconds } = tape;
    const { height, labels, width, column } = measure(), scale = window.devicePixelRatio || 1;
    const colours = readColours(), style = getComputedStyle(tape.section);
    canvas.width = width * scale;
    canvas.height = (AXIS_HEIGHT + rows.length * height) * scale;
    canvas.style.width = `${width}px`;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.fillStyle = getComputedStyle(tape.section.querySelector("#tape-point")).color;
    for (let second = (TICK_SECONDS - (begins % TICK_SECONDS)) % TICK_SECONDS; second < seconds - 10; second += TICK_SECONDS) {
      context.fillText(clock.format(new Date((begins + second) * 1000)), labels + second * column, AXIS_HEIGHT / 2);
      context.fillRect(labels + second * column, AXIS_HEIGHT - 3, 1, 3);
    }
    // By colour, because to set one takes longer than to fill a rectangle.
    const runs = {};
    rows.forEach(({ row, letters }, number) => {
      const top = AXIS_HEIGHT + number * height;
      if (labels) {
        context.fillStyle = style.color;
        context.fillText(row.cells[0].textContent.trim(), 0, top + height / 2, labels - 8);
      }
      for (let from = 0; from < seconds; ) {
        let to = from + 1;
        while (to < seconds && letters[to] === letters[from]) to += 1;
        (runs[letters[from]] ??= []).push([labels + from * column, top, (to - from) * column, height - (height > 3 ? 1 : 0)]);
        from = to;
      }
    });
    for (const [letter, rectangles] of Object.entries(runs)) {
      context.fillStyle = colours[letter] ?? "transparent";
      for (const rectangle of rectangles) context.fillRect(...rectangle);
    }
  }

  // The table says the same; it is kept up only while it is open.
  function updateTable() {
    if (!tape.section.querySelector("details").open) return;
    const names = Object.fromEntries(
      [...tape.section.querySelectorAll(".legend li")].map((item) => [item.dataset.letter, item.textContent.trim()]),
    );
    for (const { row, letters } of tape.rows) {
      row.cells[2].textContent = names[letters.at(-1)];
      ["b", "i", "w"].forEach((letter, number) => {
        const share = letters.filter((other) => other === letter).length / letters.length;
        row.cells[3 + number].textContent = `${Math.round(100 * share)} %`;
      });
    }
  }

  // Other accounts than those of the page, or a gap: the section is fetched again.
  function reload() {
    if (Date.now() - reloadedAt < RELOAD_PAUSE_MS) return;
    reloadedAt = Date.now();
    htmx.ajax("GET", location.href, { target: "#tape", select: "#tape", swap: "outerHTML" });
  }

  function add({ begins_at: begins, order, columns }) {
    const ends = tape.begins + tape.seconds, shift = begins + columns.length - ends;
    if (order !== tape.section.dataset.order || shift > columns.length) return reload();
    if (shift > 0) tape.begins += shift;
    tape.rows.forEach(({ letters }, number) => {
      if (shift > 0) letters.splice(0, shift);
      columns.forEach((column, second) => {
        const at = begins + second - tape.begins;
        if (at >= 0 && at < tape.seconds) letters[at] = column[number];
      });
    });
    draw();
    updateTable();
  }

  // What lies under the pointer.
  function find(event) {
    const { height, labels, column } = measure(), box = tape.canvas.getBoundingClientRect();
    const second = Math.floor((event.clientX - box.left - labels) / column);
    const line = tape.rows[Math.floor((event.clientY - box.top - AXIS_HEIGHT) / height)];
    return line && second < tape.seconds ? { ...line, second, letter: line.letters[second] } : null;
  }

  function listen() {
    tape.canvas.addEventListener("pointermove", (event) => {
      const found = find(event), point = tape.section.querySelector("#tape-point");
      if (!found || !found.letter) return;
      const name = tape.section.querySelector(`.legend li[data-letter="${CSS.escape(found.letter)}"]`).textContent.trim();
      const time = clock.format(new Date((tape.begins + found.second) * 1000));
      point.textContent = `${found.row.cells[0].textContent.trim()} · ${time} · ${name}`;
    });
    tape.canvas.addEventListener("click", (event) => {
      const found = find(event);
      if (!found) return;
      const account = found.row.querySelector("a").href;
      location.href = found.letter === "b" ? tape.section.dataset.requests + account.split("/").at(-1) : account;
    });
  }

  function begin() {
    tape = read();
    if (!tape) return;
    listen();
    draw();
  }

  document.addEventListener("tape", (event) => {
    if (tape) add(JSON.parse(event.detail.data));
  });
  document.addEventListener("htmx:after:swap", () => {
    if (tape && !tape.section.isConnected) begin();
  });
  window.addEventListener("resize", () => tape && draw());
  begin();
})();
