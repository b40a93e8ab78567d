"use strict";
// The page works without this script, but for the plot: it draws the calls, copies the text for an issue, opens the page at the
// failure, and opens everything for paper. It asks nobody for anything.
(() => {
  const byId = (id) => document.getElementById(id);

  // Opening at the failure.
  const failure = byId("failure");
  const reveal = (element) => {
    for (let e = element; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    element.scrollIntoView({ block: "start" });
    element.focus({ preventScroll: true });
  };

  // Copying. Where the clipboard may not be written to, the text is selected for the reader to copy.
  byId("copy").addEventListener("click", async () => {
    const text = byId("markdown");
    const done = byId("copied");
    try {
      await navigator.clipboard.writeText(text.value);
      done.textContent = "Copied.";
    } catch {
      text.closest("details").open = true;
      text.select();
      done.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with Ctrl-C.";
    }
  });

  const canvas = byId("canvas");
  let draw = () => {};
  if (canvas) draw = plot(canvas, JSON.parse(byId("data").textContent));
  if (failure && !location.hash) reveal(failure);
  addEventListener("hashchange", () => { const to = byId(location.hash.slice(1)); if (to) reveal(to); });

  // On paper nobody can open anything.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open]):not(.screen)")];
    for (const d of opened) d.open = true;
    draw(true);
  });
  addEventListener("afterprint", () => {
    for (const d of opened) d.open = false;
    draw();
  });
  document.documentElement.dataset.ready = performance.now().toFixed(1);

  function plot(canvas, data) {
    const names = { "answered": "answered", "answered elsewhere": "answered by the wrong cluster", "lost": "lost", "not issued": "not issued", "under way": "under way" };
    const calls = []; // {at, took, kind, stream}, by stream and time
    data.streams.forEach((s, stream) => {
      let at = 0;
      for (let i = 0; i < s.calls.length; i += 3) {
        at += s.calls[i];
        calls.push({ at, took: s.calls[i + 1], kind: s.kinds[s.calls[i + 2]], stream });
      }
    });
    const inOrder = [...calls].sort((a, b) => a.at - b.at || a.stream - b.stream);
    const bad = (c) => c.kind.outcome === "lost" || c.kind.outcome === "answered elsewhere";
    const slowest = calls.reduce((most, c) => Math.max(most, c.took), 10);
    const top = 38, lane = 96, foot = 24, left = 8, right = 8;
    const height = top + lane * data.streams.length + foot;
    let from = 0, to = data.to, chosen = null, drag = null, wide = 0;

    const x = (at) => left + (at - from) / (to - from) * (wide - left - right);
    const time = (px) => from + (px - left) / (wide - left - right) * (to - from);
    // One millisecond is at the bottom of a band, the slowest call at its top.
    const y = (c) => top + lane * (c.stream + 1) - 8 - Math.log1p(c.took) / Math.log1p(slowest) * (lane - 34);

    const color = (style, name) => style.getPropertyValue(name).trim();
    function render(paper) {
      const scale = devicePixelRatio || 1;
      wide = canvas.clientWidth || 900;
      canvas.width = wide * scale;
      canvas.height = height * scale;
      canvas.style.height = height + "px";
      const g = canvas.getContext("2d");
      g.scale(scale, scale);
      const style = getComputedStyle(document.documentElement);
      const light = { "--paper": "#ffffff", "--ink": "#000000", "--soft": "#444444", "--line": "#999999", "--shade": "#f3f4f6", "--shade2": "#e4e7ec", "--bad": "#b3261e", "--fault": "#f6d7b0", "--mend": "#cfe8d2", "--c0": "#0b57d0", "--c1": "#00796b", "--c2": "#7b1fa2", "--c3": "#8a5000", "--c4": "#455a64" };
      const of = (name) => (paper === true ? light[name] : color(style, name));
      const ink = of("--ink"), soft = of("--soft"), line = of("--line"), red = of("--bad");
      const who = [0, 1, 2, 3, 4].map((i) => of("--c" + i));
      g.fillStyle = of("--paper");
      g.fillRect(0, 0, wide, height);
      g.font = "12px system-ui, sans-serif";
      g.textBaseline = "alphabetic";
      g.save();
      g.beginPath();
      g.rect(left, 0, wide - left - right, height);
      g.clip();
      data.phases.forEach((p, i) => {
        g.fillStyle = of(i % 2 ? "--shade2" : "--shade");
        g.fillRect(x(p.from), 0, x(p.to) - x(p.from), height - foot);
      });
      for (const f of data.faults) {
        g.fillStyle = of(f.mend ? "--mend" : "--fault");
        g.fillRect(x(f.from), top - 16, Math.max(x(f.to) - x(f.from), 2), height - foot - top + 16);
      }
      data.phases.forEach((p) => {
        const begin = Math.max(x(p.from), left), end = Math.min(x(p.to), wide - right);
        if (end - begin < 14) return;
        g.save();
        g.beginPath();
        g.rect(begin, 0, end - begin - 3, top);
        g.clip();
        g.fillStyle = p.bad ? red : ink;
        g.fillText(p.label + (p.bad ? " ✗" : ""), begin + 4, 15);
        g.restore();
      });
      let points = 0;
      const radius = calls.length > 4000 && to - from > data.to / 4 ? 1.7 : 2.6;
      for (const c of calls) {
        if (c.at < from || c.at > to) continue;
        points++;
        const px = x(c.at), py = y(c);
        switch (c.kind.outcome) {
          case "answered":
            g.fillStyle = who[c.kind.who % 5] || soft;
            g.beginPath();
            g.arc(px, py, radius, 0, 7);
            g.fill();
            break;
          case "lost":
            g.strokeStyle = red;
            g.lineWidth = 1.4;
            g.beginPath();
            g.moveTo(px - 3, py - 3); g.lineTo(px + 3, py + 3);
            g.moveTo(px - 3, py + 3); g.lineTo(px + 3, py - 3);
            g.stroke();
            break;
          case "answered elsewhere":
            g.fillStyle = who[c.kind.who % 5] || soft;
            g.strokeStyle = red;
            g.lineWidth = 1.6;
            g.beginPath();
            g.arc(px, py, 3.4, 0, 7);
            g.fill();
            g.stroke();
            break;
          default:
            g.fillStyle = soft;
            g.fillRect(px - 3, top + lane * (c.stream + 1) - 6, 6, 2);
        }
      }
      if (chosen && chosen.at >= from && chosen.at <= to) {
        g.strokeStyle = ink;
        g.lineWidth = 2;
        g.beginPath();
        g.arc(x(chosen.at), y(chosen), 7, 0, 7);
        g.stroke();
      }
      g.restore();
      data.streams.forEach((s, i) => {
        const above = top + lane * i;
        g.strokeStyle = line;
        g.lineWidth = 1;
        g.beginPath();
        g.moveTo(0, above + 0.5);
        g.lineTo(wide, above + 0.5);
        g.stroke();
        const text = s.name + "  " + s.path + "  " + s.figure;
        const width = g.measureText(text).width;
        g.globalAlpha = 0.85;
        g.fillStyle = of("--paper");
        g.fillRect(left + 2, above + 3, width + 6, 16);
        g.globalAlpha = 1;
        g.fillStyle = ink;
        g.fillText(text, left + 5, above + 15);
      });
      // The seconds, at a distance that can be read.
      const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000]
        .find((ms) => ms / (to - from) * wide > 70) || 7200000;
      g.fillStyle = soft;
      g.strokeStyle = line;
      for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
        g.beginPath();
        g.moveTo(x(t), height - foot);
        g.lineTo(x(t), height - foot + 4);
        g.stroke();
        const text = seconds(t, step);
        g.fillText(text, Math.min(Math.max(x(t) - g.measureText(text).width / 2, 0), wide - g.measureText(text).width), height - 6);
      }
      if (drag && Math.abs(drag.to - drag.from) > 3) {
        g.globalAlpha = 0.25;
        g.fillStyle = ink;
        g.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), height - foot);
        g.globalAlpha = 1;
      }
      canvas.dataset.points = points;
      canvas.dataset.from = Math.round(from);
      canvas.dataset.to = Math.round(to);
    }

    function seconds(ms, step) {
      const digits = step >= 1000 ? 0 : step >= 100 ? 1 : step >= 10 ? 2 : 3;
      return (ms / 1000).toFixed(digits) + " s";
    }

    function describe(c) {
      const s = data.streams[c.stream];
      const parts = [s.name + " at " + seconds(c.at, 10) + ": " + names[c.kind.outcome]];
      if (c.kind.who >= 0) parts[0] += " by " + data.who[c.kind.who] + (c.kind.pod >= 0 ? " (" + data.texts[c.kind.pod] + ")" : "");
      parts[0] += " after " + c.took + " ms";
      if (c.kind.try) parts.push("at try " + c.kind.try);
      if (c.kind.why >= 0) parts.push(data.texts[c.kind.why]);
      const phase = data.phases.find((p) => c.at >= p.from && c.at < p.to);
      if (phase) parts.push("phase " + phase.label);
      const fault = data.faults.find((f) => c.at >= f.from && c.at < f.to);
      if (fault) parts.push("while: " + fault.label);
      return parts.join("; ");
    }

    function show(c) {
      chosen = c;
      if (c && (c.at < from || c.at > to)) {
        const half = (to - from) / 2;
        see(c.at - half, c.at + half);
      } else {
        render();
      }
      byId("tip").textContent = c ? describe(c) : "";
    }

    function see(begin, end) {
      let span = Math.min(Math.max(end - begin, 20), data.to);
      let middle = (begin + end) / 2;
      from = Math.min(Math.max(middle - span / 2, 0), data.to - span);
      to = from + span;
      render();
      table();
    }

    const zoom = (factor) => {
      const center = chosen && chosen.at >= from && chosen.at <= to ? chosen.at : (from + to) / 2;
      see(center - (center - from) * factor, center + (to - center) * factor);
    };
    const move = (share) => see(from + (to - from) * share, to + (to - from) * share);
    function next(step, wanted) {
      const start = chosen ? inOrder.indexOf(chosen) : inOrder.findIndex((c) => c.at >= from) - step;
      for (let i = start + step; i >= 0 && i < inOrder.length; i += step) if (wanted(inOrder[i])) return show(inOrder[i]);
      byId("tip").textContent = step > 0 ? "There is no such call after this one." : "There is no such call before this one.";
    }
    const actions = {
      in: () => zoom(0.5), out: () => zoom(2), left: () => move(-0.25), right: () => move(0.25),
      whole: () => see(0, data.to), lost: () => next(1, bad),
    };
    const keys = {
      "+": actions.in, "=": actions.in, "-": actions.out, "−": actions.out, "ArrowLeft": actions.left, "ArrowRight": actions.right,
      "0": actions.whole, "Home": actions.whole, ".": () => next(1, () => true), ",": () => next(-1, () => true),
      "n": actions.lost, "N": () => next(-1, bad), "Escape": () => show(null),
    };
    canvas.addEventListener("keydown", (e) => {
      if (e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
      e.preventDefault();
      keys[e.key]();
    });
    for (const b of document.querySelectorAll("button[data-do]")) b.addEventListener("click", actions[b.dataset.do]);

    const place = (e) => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
    function nearest(px, py) {
      let best = null, least = 144;
      for (const c of calls) {
        if (c.at < from || c.at > to) continue;
        const d = (x(c.at) - px) ** 2 + (y(c) - py) ** 2;
        if (d < least) { least = d; best = c; }
      }
      return best;
    }
    canvas.addEventListener("pointerdown", (e) => {
      if (e.button !== 0) return;
      const [px] = place(e);
      drag = { from: px, to: px };
      canvas.setPointerCapture(e.pointerId);
    });
    canvas.addEventListener("pointermove", (e) => {
      const [px, py] = place(e);
      if (drag) {
        drag.to = px;
        render();
        return;
      }
      const c = nearest(px, py);
      if (c && c !== chosen) show(c);
    });
    canvas.addEventListener("pointerup", () => {
      if (!drag) return;
      const [a, b] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
      drag = null;
      if (b - a > 5) see(time(a), time(b));
      else render();
    });
    canvas.addEventListener("pointercancel", () => { drag = null; render(); });
    canvas.addEventListener("dblclick", actions.whole);

    // The table has the calls of the stretch that is shown, so that zooming searches it.
    const most = 500;
    function table() {
      if (!byId("list").open) return;
      const inside = inOrder.filter((c) => c.at >= from && c.at <= to);
      byId("listed").textContent = inside.length + " calls from " + seconds(from, 10) + " to " + seconds(to, 10) +
        (inside.length > most ? "; the first " + most + " are listed: zoom to see others" : "");
      byId("rows").replaceChildren(...inside.slice(0, most).map((c) => {
        const row = document.createElement("tr");
        const cells = [data.streams[c.stream].name, seconds(c.at, 1), c.took + " ms", names[c.kind.outcome],
          c.kind.who >= 0 ? data.who[c.kind.who] : "", c.kind.why >= 0 ? data.texts[c.kind.why] : ""];
        cells.forEach((text, i) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          if (i === 1 || i === 2) cell.className = "number";
          row.append(cell);
        });
        return row;
      }));
    }
    byId("list").addEventListener("toggle", table);
    new ResizeObserver(() => { if (canvas.clientWidth !== wide) render(); }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
    render();
    return render;
  }
})();
