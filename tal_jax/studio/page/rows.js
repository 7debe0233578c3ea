// A list that makes the lines in sight only, so that thousands of labels cost as much as twenty.

import { clamp, h } from "./common.js";

const MARGIN = 6, LEAST_SHOWN_PX = 600;

/** @template T */
export class Rows {
  /**
   * @param {HTMLElement} box a list
   * @param {string} empty what it says without items
   * @param {(item: T) => {current: boolean, parts: any[]}} makeRow
   */
  constructor(box, empty, makeRow) {
    this.box = box;
    this.empty = empty;
    this.makeRow = makeRow;
    /** @type {T[]} */
    this.items = [];
    this.height = 0;
    box.addEventListener("scroll", () => this.draw());
  }

  /** Shows items, and scrolls to the current one, if there is one. @param {T[]} items @param {number} at its index, or -1 */
  fill(items, at = -1) {
    this.items = items;
    if (!items.length) {
      this.box.style.paddingTop = this.box.style.paddingBottom = "0";
      this.box.replaceChildren(...(this.empty ? [h("li", { class: "empty" }, this.empty)] : []));
      return;
    }
    this.draw();
    if (at < 0) return;
    const { box, height } = this, low = (at + 1) * height - box.clientHeight;
    box.scrollTop = clamp(box.scrollTop, low, at * height);
    this.draw();
  }

  draw() {
    const { box, items } = this, focused = this.focusedRow();
    if (!items.length) return;
    if (!this.height) {
      box.replaceChildren(this.row(0));
      this.height = /** @type {HTMLElement} */ (box.firstElementChild).offsetHeight;
      if (!this.height) return; // not in sight
    }
    const count = Math.ceil(Math.max(box.clientHeight, LEAST_SHOWN_PX) / this.height) + 2 * MARGIN;
    const first = clamp(Math.floor(box.scrollTop / this.height) - MARGIN, 0, Math.max(items.length - count, 0));
    const last = Math.min(first + count, items.length), scroll = box.scrollTop;
    box.style.paddingTop = `${first * this.height}px`;
    box.style.paddingBottom = `${(items.length - last) * this.height}px`;
    box.replaceChildren(...Array.from({ length: last - first }, (_, i) => this.row(first + i)));
    if (box.scrollTop !== scroll) box.scrollTop = scroll;
    if (focused) this.refocus(focused);
  }

  /** @param {number} index */
  row(index) {
    const { current, parts } = this.makeRow(this.items[index]);
    const row = h("li", { "aria-current": current ? "true" : null, "aria-setsize": this.items.length, "aria-posinset": index + 1 }, parts);
    row.dataset.index = String(index);
    return row;
  }

  /** Which button of which line has the keyboard focus: it is made anew. */
  focusedRow() {
    const row = this.box.contains(document.activeElement) ? document.activeElement?.closest("li") : null;
    if (!row) return null;
    return { index: Number(row.dataset.index), button: [...row.querySelectorAll("button")].indexOf(/** @type {any} */ (document.activeElement)) };
  }

  refocus({ index, button }) {
    const row = this.box.querySelector(`[data-index="${Math.min(index, this.items.length - 1)}"]`);
    /** @type {HTMLElement | undefined} */
    const target = row?.querySelectorAll("button")[button];
    target?.focus({ preventScroll: true });
  }
}
