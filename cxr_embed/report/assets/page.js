"use strict";

// Light and dark: the system's choice, until the button says otherwise.
(() => {
  const button = document.getElementById("theme");
  if (!button) return;
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
  button.hidden = false;
})();

// Maps: colours by any column, and a card for the point under the pointer or the arrow keys.
(() => {
  const block = document.getElementById("map-data");
  const maps = [...document.querySelectorAll("svg.map")];
  if (!block || !maps.length) return;
  const data = JSON.parse(block.textContent);
  const card = document.getElementById("card");
  const legend = document.getElementById("legend");
  const choice = document.getElementById("colour-by");
  const circles = maps.map((map) => [...map.querySelectorAll("circle")]);
  const places = circles.map((points) =>
    points.map((point) => [Number(point.getAttribute("cx")), Number(point.getAttribute("cy"))]),
  );
  const reach = 14;
  let marked = -1;
  let onMap = 0;

  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  const classOf = (column, code) =>
    code < 0 ? "none" : `${column.ordered ? "s" : "c"}${code}`;

  const dot = (kind) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const circle = document.createElementNS(space, "circle");
    svg.setAttribute("viewBox", "0 0 12 12");
    svg.setAttribute("class", "dot");
    svg.setAttribute("aria-hidden", "true");
    for (const [key, value] of [["cx", 6], ["cy", 6], ["r", 4.5], ["class", kind]]) {
      circle.setAttribute(key, value);
    }
    svg.append(circle);
    return svg;
  };

  const key = (kind, name, count) => {
    const item = make("li");
    item.append(dot(kind), `${name} `, make("span", count.toLocaleString("en"), "dim"));
    return item;
  };

  const colour = (column) => {
    unmark();
    for (const points of circles) {
      points.forEach((point, number) => {
        point.setAttribute("class", classOf(column, column.codes[number]));
      });
    }
    const keys = column.groups.map(([name, count], code) =>
      key(classOf(column, code), name, count),
    );
    if (column.without) keys.push(key("none", data.noValue, column.without));
    legend.replaceChildren(...keys);
  };

  const unmark = () => {
    if (marked >= 0) for (const points of circles) points[marked].classList.remove("marked");
    marked = -1;
    card.hidden = true;
  };

  const fill = (number) => {
    const [name, path, row, problem] = data.points[number];
    const source = document.querySelector(`img[data-row="${row}"]`);
    const parts = [];
    if (source) {
      const frame = make("span", "", "cell");
      const image = make("img");
      image.src = source.src;
      image.alt = "";
      frame.append(image);
      parts.push(frame);
    }
    parts.push(make("b", name), make("p", path));
    if (!source) parts.push(make("p", problem || "not among the pictures that were read"));
    for (const column of data.columns.slice(0, 6)) {
      const code = column.codes[number];
      if (code >= 0) parts.push(make("p", `${column.name}: ${column.groups[code][0]}`));
    }
    card.replaceChildren(...parts);
  };

  const show = (which, number) => {
    if (number !== marked) {
      unmark();
      marked = number;
      for (const points of circles) {
        points[number].classList.add("marked");
        points[number].parentNode.append(points[number]);
      }
      fill(number);
    }
    card.hidden = false;
    onMap = which;
    move();
  };

  // Beside its point, wherever the page is scrolled to.
  const move = () => {
    if (card.hidden) return;
    const box = circles[onMap][marked].getBoundingClientRect();
    const [width, height] = [card.offsetWidth, card.offsetHeight];
    const right = box.right + 12;
    const left = right + width < innerWidth - 8 ? right : box.left - 12 - width;
    const top = Math.min(Math.max(8, box.top - height / 3), Math.max(8, innerHeight - height - 8));
    card.style.transform = `translate(${Math.max(8, left)}px, ${top}px)`;
  };

  const nearest = (which, x, y) => {
    let [best, found] = [Infinity, -1];
    places[which].forEach(([px, py], number) => {
      const distance = Math.hypot(px - x, py - y);
      if (distance < best) [best, found] = [distance, number];
    });
    return [found, best];
  };

  // The next point in a direction: near, and not much aside.
  const step = (which, dx, dy) => {
    const [x, y] = places[which][marked];
    let [best, found] = [Infinity, marked];
    places[which].forEach(([px, py], number) => {
      const along = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy - (py - y) * dx);
      if (number !== marked && along > 0 && along + 2 * aside < best) {
        [best, found] = [along + 2 * aside, number];
      }
    });
    return found;
  };

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  maps.forEach((map, which) => {
    const at = (event) => {
      const box = map.getBoundingClientRect();
      const scale = map.viewBox.baseVal.width / box.width;
      const [number, distance] = nearest(
        which, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale,
      );
      if (distance <= reach) show(which, number);
      else unmark();
    };
    map.addEventListener("pointermove", at);
    map.addEventListener("pointerdown", at);
    map.addEventListener("pointerleave", unmark);
    map.addEventListener("blur", unmark);
    map.addEventListener("keydown", (event) => {
      if (event.key === "Escape") unmark();
      const direction = arrows[event.key];
      if (!direction) return;
      event.preventDefault();
      const size = map.viewBox.baseVal.width / 2;
      show(which, marked < 0 ? nearest(which, size, size)[0] : step(which, ...direction));
    });
  });
  addEventListener("scroll", move, { passive: true });
  if (choice) {
    choice.addEventListener("change", () => colour(data.columns[choice.value]));
    // A page that is loaded again keeps its choice, and the map's colours have to follow.
    if (choice.value !== "0") colour(data.columns[choice.value]);
  }
})();
