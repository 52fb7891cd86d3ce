"use strict";
(() => {
  // The page's own story; `story` is the one that is shown.
  const own = JSON.parse(document.getElementById("story").textContent);
  let story = own;
  const byId = (id) => document.getElementById(id);
  // Every text goes through textContent: names in a trace are strangers' words.
  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    for (const child of children) {
      if (typeof child !== "string") {
        element.append(child);
        continue;
      }
      // An arrow of two characters may be broken between them; a long name is, behind an underscore.
      child.replaceAll("->", "\u2192").split(/(?<=_)/).forEach((part, index) => {
        if (index > 0) element.append(document.createElement("wbr"));
        element.append(part);
      });
    }
    return element;
  };
  let at = 0;
  const last = () => story.steps.length;

  const tags = (from, to) => {
    const found = [];
    const within = (step) => step !== null && step >= from && step <= to;
    if (within(story.written)) found.push(["written", "the lost write"]);
    if (within(story.dropped)) found.push(["dropped", "last record gone"]);
    return found;
  };

  const lines = (id, texts) => byId(id).replaceChildren(...texts.map((text) => make("li", {}, text)));

  // The lanes: a column each, a row for each run of steps.
  let phrases = [];
  let cells = [];
  const drawLanes = () => {
    phrases = [];
    cells = [];
    const header = make("tr", {}, make("th", { scope: "col" }, "block"));
    for (const lane of story.lanes) header.append(make("th", { scope: "col" }, lane));
    const body = make("tbody");
    let block = 0;
    for (const row of story.rows) {
      const line = make("tr", { class: row.block !== block ? "first" : null });
      line.append(make("td", {}, row.block !== block ? String(row.block) : ""));
      block = row.block;
      story.lanes.forEach((_, lane) => {
        const cell = make("td");
        if (lane === row.lane) {
          const list = make("ol");
          for (const phrase of row.phrases) {
            const marks = tags(phrase.first, phrase.last);
            const button = make("button", {
              type: "button",
              class: ["phrase", ...marks.map((mark) => mark[0])].join(" "),
              title: phrase.first === phrase.last ? `step ${phrase.first}` : `steps ${phrase.first} to ${phrase.last}`,
            }, phrase.text);
            for (const [kind, text] of marks) button.append(make("span", { class: `tag ${kind}` }, text));
            const within = (step) => step !== null && step >= phrase.first && step <= phrase.last;
            const target = within(story.dropped) ? story.dropped : within(story.written) ? story.written : phrase.last;
            button.addEventListener("click", () => go(target));
            phrases.push([phrase, button]);
            list.append(make("li", {}, button));
          }
          cell.append(list);
          cells.push([row, cell]);
        }
        line.append(cell);
      });
      body.append(line);
    }
    byId("lanes").replaceChildren(make("thead", {}, header), body);
  };

  // The path of the record.
  const drawPath = () => {
    const path = byId("path");
    path.replaceChildren();
    for (const step of story.path) {
      const note = story.steps[step - 1];
      const button = make("button", { type: "button", class: "phrase" }, `${step} ${story.lanes[note.lane]}: ${note.words}`);
      for (const [kind, text] of tags(step, step)) button.append(make("span", { class: `tag ${kind}` }, text));
      button.addEventListener("click", () => go(step));
      phrases.push([{ first: step, last: step }, button]);
      path.append(make("li", {}, button, make("div", { class: "faint" }, note.changes.join("; "))));
    }
    byId("pathbox").hidden = story.path.length === 0;
    byId("pathpage").textContent = story.pages[0] || "";
  };

  const offsetOf = (slot) => {
    const page = story.pages[0];
    if (!page) return null;
    const cut = page.lastIndexOf(":");
    return page.slice(0, cut) === slot ? Number(page.slice(cut + 1)) : null;
  };
  const ROWS = [
    ["stale", "differs from the copy", "≠"],
    ["writable", "writable leaf", "w"],
    ["bitmap", "bitmap", "1"],
    ["scratch", "GET's scratch", "1"],
    ["pending", "to copy", "•"],
  ];
  const sets = (state) => {
    const box = make("div", { class: "sets" });
    story.slots.forEach(([name, pages], index) => {
      const slot = state.slots[index];
      box.append(make("h3", {}, `memslot ${name}`));
      if (pages > 64) {
        const list = make("ul");
        for (const [key, label] of ROWS) list.append(make("li", {}, `${label}: ${slot[key].join(", ") || "none"}`));
        box.append(list);
        return;
      }
      const followed = offsetOf(name);
      const table = make("table");
      const head = make("tr", {}, make("th", { scope: "row" }, "page"));
      for (let page = 0; page < pages; page++) {
        head.append(make("th", { scope: "col", class: page === followed ? "followed mono" : "mono" }, String(page)));
      }
      table.append(head);
      for (const [key, label, sign] of ROWS) {
        const row = make("tr", {}, make("th", { scope: "row" }, label));
        const on = new Set(slot[key]);
        for (let page = 0; page < pages; page++) {
          const is = on.has(page);
          row.append(make("td", {}, make("span", {
            class: `cell${is ? ` on ${key}` : ""}`, role: "img", "aria-label": is ? "yes" : "no",
          }, sign)));
        }
        table.append(row);
      }
      box.append(table);
    });
    return box;
  };
  const vcpus = (state) => {
    const box = make("div");
    state.vcpus.forEach((vcpu, index) => {
      box.append(make("h3", {}, `vcpu${index}: ${vcpu.place}`));
      const facts = [];
      if (vcpu.tlb.length) facts.push(`TLB lets stores to ${vcpu.tlb.join(", ")} through`);
      if (vcpu.pml.length) facts.push(`PML buffer: ${vcpu.pml.join(", ")}`);
      if (vcpu.request) facts.push("soft-full request raised");
      if (facts.length) box.append(make("div", {}, facts.join("; ")));
      if (vcpu.ring.length) {
        const ring = make("ul", { class: "ring", "aria-label": `ring of vcpu${index}` });
        vcpu.ring.forEach((entry, position) => {
          const over = story.overwritten;
          const lost = over && over.vcpu === index && over.entry === position && at >= over.step;
          const text = entry.flags === "00" ? "00" : `${entry.flags} ${entry.page}`;
          ring.append(make("li", { class: `f${entry.flags} mono${lost ? " lost" : ""}` }, lost ? `${text}, over ${over.page}` : text));
        });
        box.append(ring, make("div", { class: "faint mono" }, `dirty ${vcpu.dirty}  fetch ${vcpu.fetch}  reset ${vcpu.reset}`));
      }
    });
    return box;
  };
  const others = (state) => {
    const list = make("ul");
    state.threads.forEach((words, index) => {
      list.append(make("li", {}, `${state.threads.length > 1 ? `VMM${index}` : "VMM"} is at: ${words}`));
    });
    state.devices.forEach((device, index) => {
      list.append(make("li", {}, `device${index}: in flight ${device.in_flight.join(", ") || "nothing"}; its log ${device.log.join(", ") || "empty"}`));
    });
    for (const waits of state.waiting) list.append(make("li", {}, waits));
    if (state.slots_lock) list.append(make("li", {}, "slots_lock is held"));
    if (state.mmu_lock) list.append(make("li", {}, "mmu_lock is held for write"));
    return list;
  };
  const pageBox = (note) => {
    const box = make("div");
    if (!story.pages.length) return box;
    const facts = at === 0 ? story.start : note;
    const kind = facts.forgotten ? "forgotten" : facts.stale ? "stale" : "";
    const list = make("dl");
    const field = (name, value) => list.append(make("dt", {}, name), make("dd", {}, value));
    field("bytes", facts.stale ? "differ from the copy" : "equal the copy's");
    field("accounted for by", facts.records);
    field("stores", facts.open ? "go through unseen" : "fault first");
    box.append(make("div", { class: `page ${kind}` }, make("strong", {}, story.pages[0]), list));
    if (note && note.changes.length) {
      const changes = make("ul", { class: "changed" });
      for (const change of note.changes) changes.append(make("li", {}, change));
      box.append(changes);
    }
    return box;
  };

  const slider = byId("slider");
  const go = (step) => {
    at = Math.max(0, Math.min(last(), step));
    const note = at === 0 ? null : story.steps[at - 1];
    slider.value = String(at);
    const now = byId("now");
    now.replaceChildren();
    const text = note ? `${story.lanes[note.lane]} ${note.words}` : "before the first step";
    slider.setAttribute("aria-valuetext", `step ${at} of ${last()}: ${text}`);
    now.append(make("b", {}, `step ${at} of ${last()}`), note ? ` · block ${note.block} · ` : " · ", text);
    if (note) now.append(make("code", { class: "faint" }, `  ${note.name}`));
    for (const [phrase, button] of phrases) button.classList.toggle("now", at >= phrase.first && at <= phrase.last);
    for (const [row, cell] of cells) cell.classList.toggle("now", at >= row.first && at <= row.last);
    const state = story.states[story.views[at]];
    byId("page").replaceChildren(pageBox(note));
    byId("sets").replaceChildren(sets(state), vcpus(state), others(state));
    document.body.dataset.step = String(at);
    if (model) offer();
  };
  const nextBlock = (direction) => {
    const current = at === 0 ? 0 : story.steps[at - 1].block;
    if (direction > 0) {
      const next = story.steps.findIndex((note) => note.block > current);
      go(next < 0 ? last() : next + 1);
    } else {
      const first = story.steps.findIndex((note) => note.block === current) + 1;
      if (at > first) return go(first);
      go(story.steps.findIndex((note) => note.block === current - 1) + 1);
    }
  };
  const draw = () => {
    document.title = story.title;
    byId("claim").textContent = story.claim;
    byId("claim").className = story.broken ? "claim" : "claim whole";
    lines("head", story.head);
    lines("what", story.conclusion);
    byId("size").textContent = story.size;
    slider.max = String(last());
    byId("towrite").hidden = story.written === null;
    byId("todrop").hidden = story.dropped === null;
    drawLanes();
    drawPath();
  };
  const place = () => story.dropped ?? story.written ?? last();

  // What if: the model itself, where the page carries it. It is asked in JSON and answers in JSON.
  let model = null;
  let takes = [];
  const ask = (more) => {
    const text = new TextEncoder().encode(JSON.stringify({ ...model.question, takes, ...more }));
    const room = model.wasm.dirtysim_room(text.length);
    new Uint8Array(model.wasm.memory.buffer, room, text.length).set(text);
    const length = model.wasm.dirtysim_answer();
    const answer = new Uint8Array(model.wasm.memory.buffer, model.wasm.dirtysim_text(), length);
    return JSON.parse(new TextDecoder().decode(answer));
  };
  const say = (text) => { byId("ifsays").textContent = text; };
  // What stands behind `#`: where the reader is, and what was taken another way.
  const link = () => {
    const steps = takes.map((take) => {
      const words = take.step ? [take.step.who, take.step.do, ...(take.step.page ? [take.step.page] : [])] : ["end"];
      return `&take=${[take.at, ...words].map(encodeURIComponent).join("~")}`;
    });
    return `#step=${at}${steps.join("")}`;
  };
  const read = (hash) => {
    const parts = hash.replace(/^#/, "").split("&").map((part) => part.split("="));
    const step = parts.find(([key, value]) => key === "step" && /^\d+$/.test(value));
    const takes = parts.filter(([key, value]) => key === "take" && value).map(([, value]) => {
      const [at, who, name, page] = value.split("~").map(decodeURIComponent);
      const step = name === undefined ? null : { who, do: name, ...(page === undefined ? {} : { page }) };
      return { at: Number(at), step };
    });
    return { step: step ? Number(step[1]) : null, takes };
  };
  // Tells the schedule with `wanted` taken another way; false where that is not possible.
  const take = (wanted) => {
    const before = takes;
    takes = wanted;
    if (takes.length === 0) {
      story = own;
      byId("mail").textContent = "";
    } else {
      const answer = ask({});
      if (answer.error) {
        takes = before;
        say(answer.error);
        return false;
      }
      story = answer.story;
      byId("mail").textContent = answer.mail;
    }
    document.body.dataset.takes = String(takes.length);
    draw();
    byId("ifundo").hidden = byId("ifmail").hidden = takes.length === 0;
    byId("ifown").hidden = takes.length < 2;
    byId("iflist").replaceChildren(...takes.map((take) => make("li", {}, take.step
      ? `after step ${take.at}: ${take.step.who} ${take.step.do} ${take.step.page || ""}` : `from step ${take.at} on to the end`)));
    say(takes.length === 0 ? "" : story.broken ? "It is broken this way too." : "");
    return true;
  };
  const choose = (step) => {
    const here = at;
    if (take([...takes, { at: here, step }])) {
      go(step ? here + 1 : last());
      history.replaceState(null, "", link());
    }
  };
  const offer = () => {
    const answer = ask({ at });
    const list = byId("ifsteps");
    list.replaceChildren();
    for (const possible of answer.possible || []) {
      const { who, do: name, page } = possible.step;
      const next = story.steps[at];
      const told = next && next.who === who && next.name === name && (next.page ?? undefined) === page;
      const button = make("button", { type: "button", class: told ? "phrase told" : "phrase", title: name }, `${possible.lane} ${possible.words}`);
      if (told) button.append(make("span", { class: "tag" }, "what this schedule does"));
      for (const claim of possible.breaks) button.append(make("span", { class: "tag dropped" }, `breaks ${claim}`));
      button.addEventListener("click", () => (told ? go(at + 1) : choose(possible.step)));
      list.append(make("li", {}, button));
    }
    byId("ifnone").hidden = list.childElementCount > 0;
    byId("ifend").hidden = list.childElementCount === 0;
  };
  const withModel = async () => {
    const carried = document.getElementById("model");
    if (!carried) return;
    const bytes = Uint8Array.from(atob(carried.textContent.trim()), (c) => c.charCodeAt(0));
    const { instance } = await WebAssembly.instantiate(bytes, {});
    model = { wasm: instance.exports, question: JSON.parse(byId("question").textContent) };
    // A model that tells the page's own schedule otherwise is another one than the program's.
    const { story: again, error } = ask({});
    const same = (a, b) => ["lanes", "rows", "steps", "states", "views"].every((key) => JSON.stringify(a[key]) === JSON.stringify(b[key]));
    byId("whatif").hidden = false;
    if (error || !same(again, own)) {
      model = null;
      byId("ifbody").hidden = true;
      say("The model in this page is of another version than the program that wrote it: nothing can be tried here.");
      return;
    }
    byId("ifend").addEventListener("click", () => choose(null));
    byId("ifundo").addEventListener("click", () => {
      const { at: where } = takes[takes.length - 1];
      if (take(takes.slice(0, -1))) {
        go(where);
        history.replaceState(null, "", link());
      }
    });
    byId("ifown").addEventListener("click", () => {
      take([]);
      go(place());
      history.replaceState(null, "", link());
    });
    byId("iflink").addEventListener("click", () => {
      history.replaceState(null, "", link());
      const copied = navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject();
      copied.then(() => say("The link is copied."), () => say(`The link: ${location.href}`));
    });
    const wanted = read(location.hash);
    if (wanted.takes.length && take(wanted.takes)) go(wanted.step ?? place());
    else offer();
  };

  slider.addEventListener("input", () => go(Number(slider.value)));
  byId("back").addEventListener("click", () => go(at - 1));
  byId("forth").addEventListener("click", () => go(at + 1));
  byId("towrite").addEventListener("click", () => go(story.written));
  byId("todrop").addEventListener("click", () => go(story.dropped));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const keys = {
      ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), PageUp: () => nextBlock(-1), PageDown: () => nextBlock(1),
      Home: () => go(0), End: () => go(last()),
      w: () => story.written !== null && go(story.written), l: () => story.dropped !== null && go(story.dropped),
    };
    if (keys[event.key]) {
      keys[event.key]();
      event.preventDefault();
    }
  });
  addEventListener("hashchange", () => {
    const wanted = read(location.hash);
    if (model && !take(wanted.takes)) return;
    go(wanted.step ?? place());
  });
  draw();
  go(read(location.hash).step ?? place());
  withModel().then(
    () => { document.body.dataset.model = model ? "ready" : "none"; },
    (error) => {
      model = null;
      byId("whatif").hidden = false;
      byId("ifbody").hidden = true;
      say(`The model in this page does not run in this browser: ${error.message}`);
      document.body.dataset.model = "failed";
    },
  );
})();
