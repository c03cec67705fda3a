// Updates the page, which also works without this script. It requests the same page again and
// replaces the elements with data-live. Filters, sorting and paging change the query first.
"use strict";

(() => {
  const live = document.getElementById("live");
  const form = document.getElementById("filters");
  let under_way = null;
  let timer = 0;

  // A selector for the element with the focus: by its id, or else by its target or label.
  const address_of = (element) => {
    if (element === null || element === document.body) return null;
    for (const name of ["id", "href", "aria-label"]) {
      const value = element.getAttribute(name);
      if (value) return `[${name}="${CSS.escape(value)}"]`;
    }
    return null;
  };

  // Selected text is not replaced by an update that nobody asked for.
  const is_marked = (part) => {
    const marked = getSelection();
    return !marked.isCollapsed && part.contains(marked.anchorNode);
  };

  const put = (fresh, is_asked) => {
    const focused = document.activeElement;
    const address = address_of(focused);
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other === null || other.outerHTML === part.outerHTML) continue;
      if (!is_asked && is_marked(part)) continue;
      const places = [...part.querySelectorAll(".scroll, pre")];
      const scrolled = places.map((each) => [each.scrollLeft, each.scrollTop]);
      part.replaceWith(document.adoptNode(other));
      other.querySelectorAll(".scroll, pre").forEach((each, number) => {
        [each.scrollLeft, each.scrollTop] = scrolled[number] ?? [0, 0];
      });
    }
    if (address !== null && !focused.isConnected) {
      document.querySelector(`main ${address}`)?.focus({ preventScroll: true });
    }
  };

  const say = (text, is_lost) => {
    live.textContent = text;
    live.classList.toggle("lost", is_lost);
    // Screen readers announce problems only, not each update.
    live.setAttribute("role", is_lost ? "alert" : "none");
  };

  const load = async (is_asked) => {
    clearTimeout(timer);
    under_way?.abort();
    const mine = (under_way = new AbortController());
    const patience = Number(document.body.dataset.patience);
    const late = new Error(`no answer within ${patience} s`);
    const limit = setTimeout(() => mine.abort(late), patience * 1000);
    try {
      const answer = await fetch(location.href, { signal: mine.signal });
      const text = await answer.text();
      const type = answer.headers.get("Content-Type") ?? "";
      if (!answer.ok && answer.status !== 404) throw new Error(`status ${answer.status}`);
      if (!type.startsWith("text/html")) throw new Error(`unexpected type ${type}`);
      if (mine !== under_way) return;
      put(new DOMParser().parseFromString(text, "text/html"), is_asked);
      if (answer.ok) {
        say(`Live: ${new Date().toLocaleTimeString()}`, false);
      } else {
        say("Not found any more: this is the last known state.", true);
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      say(`Not live: ${error.message}`, true);
    } finally {
      clearTimeout(limit);
    }
    if (mine === under_way) wait();
  };

  const wait = () => {
    clearTimeout(timer);
    const seconds = Number(document.body.dataset.refresh);
    timer = setTimeout(() => (document.hidden ? wait() : load(false)), seconds * 1000);
  };

  const fields = () => new URLSearchParams([...new FormData(form)].filter(([, text]) => text));

  const go = (query, is_step) => {
    const url = query.size ? `?${query}` : location.pathname;
    history[is_step ? "pushState" : "replaceState"](null, "", url);
    load(true);
  };

  // Set the form's fields from the address.
  const fill = () => {
    const query = new URLSearchParams(location.search);
    for (const field of form.elements) {
      if (!field.name) continue;
      const first = field.options?.[0]?.value ?? "";
      field.value = query.get(field.name) ?? first;
    }
  };

  if (form !== null) {
    form.addEventListener("input", () => go(fields(), false));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      go(fields(), true);
    });
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("thead a, .paging a, #accounts dd a, form a.button");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      const is_turn = link.closest(".paging") !== null;
      go(new URL(link.href).searchParams, true);
      fill();
      if (is_turn) document.getElementById("jobs-title").scrollIntoView();
    });
    addEventListener("popstate", () => {
      fill();
      load(true);
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) load(false);
  });
  say("Live", false);
  wait();
})();
