// Just enough of a browser for the script of a flame graph: boxes come in as JSON, clicks go in, what is shown comes out.
"use strict";
const { boxes, time, script, clicks } = JSON.parse(require("fs").readFileSync(0, "utf8"));
function element(attributes) {
  const heard = {}, classes = new Set();
  return {
    attributes, style: {}, textContent: "", classes, parts: {},
    classList: { toggle(name, on) { on ? classes.add(name) : classes.delete(name); } },
    getAttribute(name) { return attributes[name]; },
    setAttribute(name, value) { attributes[name] = String(value); },
    addEventListener(kind, call) { heard[kind] = call; },
    querySelector(name) { return this.parts[name]; },
    fire(kind) { heard[kind](); },
  };
}
const drawn = boxes.map((box) => {
  const one = element(box);
  one.parts = { rect: element({}), text: element({}), title: element({}) };
  one.parts.title.textContent = "tip of " + box["data-name"];
  return one;
});
const named = { said: element({}), reset: element({}), search: element({}) };
const root = element({ "data-time": String(time) });
root.viewBox = { baseVal: { width: 1200 } };
const document = { documentElement: root, querySelectorAll: () => drawn, getElementById: (id) => named[id] };
let answer = "";
new Function("document", "window", script)(document, { prompt: () => answer });
const told = clicks.map((click) => {
  if (click.search !== undefined) { answer = click.search; named.search.fire("click"); }
  else if (click.reset) named.reset.fire("click");
  else drawn.find((one) => one.attributes["data-name"] === click.name).fire("click");
  return {
    said: named.said.textContent,
    found: drawn.filter((one) => one.classes.has("found")).map((one) => one.attributes["data-name"]),
    shown: Object.fromEntries(
      drawn.filter((one) => one.style.display !== "none")
        .map((one) => [one.attributes["data-name"], [+one.parts.rect.attributes.x, +one.parts.rect.attributes.width, one.parts.text.textContent]])
    ),
  };
});
process.stdout.write(JSON.stringify(told));
