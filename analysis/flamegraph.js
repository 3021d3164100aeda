"use strict";
// Boxes carry their place in ns, which no zoom rounds; a click makes one of them the whole.
(function () {
  var svg = document.documentElement, width = svg.viewBox.baseVal.width, letter = 7.2;
  var total = parseInt(svg.getAttribute("data-time"), 10);
  var boxes = Array.prototype.slice.call(document.querySelectorAll(".box"));
  var said = document.getElementById("said");
  function number(box, key) { return parseInt(box.getAttribute("data-" + key), 10); }
  function show(begin, share, level) {
    boxes.forEach(function (box) {
      var from = number(box, "x"), long = number(box, "w"), below = number(box, "y") < level;
      var x = (from - begin) / share * width, wide = long / share * width;
      if (below && from <= begin && from + long >= begin + share) { x = 0; wide = width; }
      else if (below || from < begin || from + long > begin + share) { box.style.display = "none"; return; }
      box.style.display = "";
      box.style.opacity = below ? 0.5 : 1;
      var rect = box.querySelector("rect"), text = box.querySelector("text"), name = box.getAttribute("data-name");
      rect.setAttribute("x", x); rect.setAttribute("width", Math.max(wide, 0.1));
      text.setAttribute("x", x + 3);
      var room = Math.floor((wide - 6) / letter);
      text.textContent = name.length <= room ? name : room > 2 ? name.slice(0, room - 1) + "\u2026" : "";
    });
  }
  boxes.forEach(function (box) {
    box.addEventListener("click", function () { show(number(box, "x"), number(box, "w"), number(box, "y")); });
    box.addEventListener("mouseover", function () { said.textContent = box.querySelector("title").textContent; });
  });
  document.getElementById("reset").addEventListener("click", function () { show(0, total, 0); });
  document.getElementById("search").addEventListener("click", function () {
    var wanted = window.prompt("part of a function's name") || "", areas = [];
    boxes.forEach(function (box) {
      var hit = wanted !== "" && box.getAttribute("data-name").indexOf(wanted) >= 0;
      box.classList.toggle("found", hit);
      if (hit) { areas.push([number(box, "x"), number(box, "x") + number(box, "w")]); }
    });
    // What lies above a found box is found already: areas are united.
    areas.sort(function (a, b) { return a[0] - b[0]; });
    var sum = 0, to = 0;
    areas.forEach(function (area) { sum += Math.max(0, area[1] - Math.max(area[0], to)); to = Math.max(to, area[1]); });
    said.textContent = wanted === "" ? " " : wanted + ": " + (100 * sum / total).toFixed(2) + " % in " + areas.length + " boxes";
  });
}());
