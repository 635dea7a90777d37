// The playground: sends a request, and shows what the farm tells of it. Replies become text, never markup.
"use strict";

(() => {
  const form = document.querySelector("#ask");
  const answer = document.querySelector("#answer");
  const stop = document.querySelector("#stop");
  const send = form.querySelector("[type=submit]");
  const shown = (name) => answer.querySelector(`[data-show="${name}"]`);
  const number = new Intl.NumberFormat(document.documentElement.lang);
  const NOTHING = "–";
  // Characters of raw events that are kept on the page.
  const MAX_RAW = 500_000;
  let request = null;

  function show(name, text) {
    shown(name).textContent = text === "" || text === null || text === undefined ? NOTHING : String(text);
  }

  function showState(name) {
    shown("state").textContent = document.querySelector(`#states [data-state="${name}"]`).textContent;
  }

  function showError(text) {
    shown("error").textContent = text;
  }

  const milliseconds = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);

  function link(element, pattern, id, text) {
    const anchor = document.createElement("a");
    anchor.href = pattern.replace("ID", encodeURIComponent(id));
    anchor.textContent = text || id;
    element.replaceChildren(anchor);
  }

  function showAccount(fields) {
    if (fields.credential) link(shown("account"), answer.dataset.accountUrl, fields.credential, fields.credential_name);
  }

  function showCurl(body) {
    const quoted = body.replaceAll("'", "'\\''");
    const command = `curl -N ${form.dataset.baseUrl}/chat/completions \\
  -H "authorization: Bearer $API_KEY" \\
  -H 'content-type: application/json' \\
  -d '${quoted}'`;
    shown("curl").textContent = command;
    answer.querySelector("[data-copy]").dataset.copy = command;
  }

  const handlers = {
    admitted(fields) {
      showCurl(fields.body);
      shown("request").href = answer.dataset.requestUrl.replace("ID", encodeURIComponent(fields.request));
      shown("request").textContent = fields.request;
      showState("queued");
    },
    waiting(fields) {
      showState(fields.state);
      show("position", fields.position === null ? "" : number.format(fields.position));
      show("wait", milliseconds(Date.now() - request.since));
      showAccount(fields);
    },
    started(fields) {
      showState("replying");
      show("position", "");
      show("wait", milliseconds(fields.queue_wait_ms));
      show("first", milliseconds(fields.first_byte_ms));
      show("attempts", number.format(fields.attempts));
      showAccount(fields);
    },
    piece(fields) {
      shown("text").append(fields.text);
      const raw = shown("raw");
      if (raw.textContent.length < MAX_RAW) raw.append(fields.raw);
    },
    ended(fields) {
      request.hasEnded = true;
      const failed = fields.status >= 400 || fields.code !== "";
      showState(failed ? "failed" : "done");
      if (failed) showError([fields.status, fields.code, fields.message].filter(Boolean).join(" "));
      show("position", "");
      if (!fields.is_logged) return;
      showAccount(fields);
      show("wait", milliseconds(fields.queue_ms));
      if (fields.first_ms) show("first", milliseconds(fields.first_ms - fields.queue_ms));
      show("total", milliseconds(fields.total_ms));
      show("attempts", number.format(fields.attempts));
      const about = fields.estimated ? "≈ " : "";
      show("tokens", `${about}${number.format(fields.prompt_tokens)} + ${number.format(fields.completion_tokens)}`);
      if (fields.tokens_per_second !== null) show("rate", number.format(fields.tokens_per_second));
      const tried = fields.tried.map(
        (one) => `${one.credential_name || one.credential}: ${one.outcome} ${one.status || ""} ${one.milliseconds} ms`,
      );
      show("tried", tried.join("; "));
    },
  };

  function clear() {
    for (const element of answer.querySelectorAll("dd")) element.textContent = NOTHING;
    for (const name of ["text", "raw", "error", "request"]) shown(name).textContent = "";
    show("tried", "");
    showState("sending");
  }

  function readForm() {
    const data = new FormData(form);
    const body = { model: data.get("model"), user: data.get("user"), stream: data.has("stream") };
    for (const name of ["system", "pool", "credential"]) body[name] = data.get(name);
    for (const name of ["temperature", "max_tokens"]) if (data.get(name) !== "") body[name] = Number(data.get(name));
    return body;
  }

  // The page does not wait for a pool whose upstream has to be asked for its models first.
  async function loadModels() {
    const list = document.querySelector("#models");
    if (!list.dataset.url) return;
    const response = await fetch(list.dataset.url);
    if (!response.ok || response.redirected) return;
    const names = [...new Set((await response.json()).data.map((served) => served.model))];
    list.replaceChildren(...names.map((name) => new Option(name, name)));
    const field = form.querySelector("#f-model");
    if (field.value === "" && names.length > 0) field.value = names[0];
  }

  // The choices are in the address, so that it can be kept; texts are not.
  function keepChoices(body) {
    const query = new URLSearchParams(location.search);
    for (const name of ["model", "pool", "credential"]) {
      if (body[name]) query.set(name, body[name]);
      else query.delete(name);
    }
    history.replaceState(null, "", `${location.pathname}?${query}`);
  }

  function dispatch(block) {
    const lines = block.split("\n");
    const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
    const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
    if (name in handlers && data) handlers[name](JSON.parse(data));
  }

  async function receive(response) {
    let held = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (held + value).split("\n\n");
      held = blocks.pop();
      blocks.forEach(dispatch);
    }
  }

  async function ask() {
    const body = readForm();
    request = { abort: new AbortController(), since: Date.now(), hasEnded: false };
    keepChoices(body);
    clear();
    send.disabled = true;
    stop.disabled = false;
    try {
      const response = await fetch(form.dataset.url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        signal: request.abort.signal,
      });
      if (response.ok) await receive(response);
      else {
        const { error } = await response.json();
        request.hasEnded = true;
        showState("failed");
        showError(`${response.status} ${error.code} ${error.message}`);
      }
      if (!request.hasEnded) showState("lost");
    } catch {
      showState(request.abort.signal.aborted ? "stopped" : "lost");
    } finally {
      send.disabled = false;
      stop.disabled = true;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!send.disabled) ask();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  stop.addEventListener("click", () => request.abort.abort());
  addEventListener("pagehide", () => request?.abort.abort());
  // Without the list the field takes any name.
  loadModels().catch(() => {});
})();
