"use strict";
(() => {
  const line = document.getElementById("live");
  if (!line || !window.EventSource) return;
  const hour = () => new Date().toISOString().slice(11, 19) + " UTC";
  const ordinary = 5000, silence = 40000; // milliseconds
  let source = null, heard = 0, heardAt = hour(), lost = false;
  let waiting = 0, fetching = false, again = false, fetched = Date.now();

  function say(text, bad) {
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("lost", bad);
  }
  function alive() {
    heard = Date.now();
    heardAt = hour();
    if (lost || !line.textContent.startsWith("Live")) say("Live: renews itself", false);
    if (lost) later(0);
    lost = false;
  }
  function dead() {
    if (!lost) say("Not live since " + heardAt + "; trying again", true);
    lost = true;
  }

  // Each part is replaced for itself, and only if it is another, so that what
  // is read, selected or opened stays where it is.
  function take(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement;
    const address = focused && focused.getAttribute("href");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (!other || other.innerHTML === part.innerHTML && other.className === part.className) continue;
      const held = part.contains(focused);
      for (const d of part.querySelectorAll("details[open][id]")) {
        const same = other.querySelector("#" + d.id);
        if (same) same.open = true;
      }
      part.className = other.className;
      part.replaceChildren(...other.childNodes);
      if (held && address) {
        for (const a of part.querySelectorAll("a")) {
          if (a.getAttribute("href") === address) { a.focus({ preventScroll: true }); break; }
        }
      }
    }
    document.body.className = fresh.body.className;
    document.title = fresh.title;
    const icon = document.querySelector("link[rel=icon]"), other = fresh.querySelector("link[rel=icon]");
    if (icon && other) icon.href = other.getAttribute("href");
  }
  async function renew() {
    waiting = 0;
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.ok) take(await answer.text());
      fetched = Date.now();
    } catch { dead(); }
    fetching = false;
    if (again) { again = false; later(0); }
  }
  function later(wait) {
    if (waiting && wait > 0) return;
    clearTimeout(waiting);
    waiting = setTimeout(renew, wait);
  }
  function busy() {
    const chosen = document.getSelection();
    return document.hidden || chosen && !chosen.isCollapsed;
  }
  function changed(event) {
    alive();
    const told = JSON.parse(event.data);
    if (told.urgent) later(0);
    else if (!busy()) later(Math.max(0, fetched + ordinary - Date.now()));
  }

  function open() {
    if (source) source.close();
    heard = Date.now();
    source = new EventSource(line.dataset.stream);
    // What happened between the page and the stream, and what is new without
    // being a change: when the last round was.
    source.addEventListener("hello", () => { alive(); later(ordinary); });
    source.addEventListener("alive", () => { alive(); if (!busy()) later(0); });
    source.addEventListener("change", changed);
    source.onerror = dead;
  }
  setInterval(() => {
    // A browser gives up for good where the answer was an error.
    if (source.readyState === EventSource.CLOSED || Date.now() - heard > silence) { dead(); open(); }
  }, 10000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) later(0); });
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
})();
