"use strict";
// Tables sort by a click on a head, or by Enter on it: numbers by their value, texts by their letters; a second click turns the order.
document.querySelectorAll("table.sorts").forEach(function (table) {
  var body = table.tBodies[0], heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
  var first = Array.prototype.slice.call(body.rows);
  function key(row, place) {
    var cell = row.cells[place], value = cell.getAttribute("data-v");
    return value !== null ? parseFloat(value) : cell.classList.contains("n") ? null : cell.textContent;
  }
  function sort(head, place) {
    var down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    first.slice().sort(function (left, right) {
      var a = key(left, place), b = key(right, place);
      if (a === null || b === null) return (a === null) - (b === null);
      var order = typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
      return down ? -order : order;
    }).forEach(function (row) { body.appendChild(row); });
  }
  heads.forEach(function (head, place) {
    head.tabIndex = 0;
    head.addEventListener("click", function () { sort(head, place); });
    head.addEventListener("keydown", function (event) { if (event.key === "Enter") sort(head, place); });
  });
});
