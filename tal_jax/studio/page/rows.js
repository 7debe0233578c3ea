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
    /** The first and the last line that are made. */
    this.range = [0, 0];
    box.addEventListener("scroll", () => {
      const [first, last] = this.rangeAt(box.scrollTop);
      if (first !== this.range[0] || last !== this.range[1]) this.draw();
    });
  }

  /** Shows items, and scrolls to the current one, if there is one. @param {T[]} items @param {number} at its index, or -1 */
  fill(items, at = -1) {
    const { box } = this;
    this.items = items;
    if (!items.length) {
      box.replaceChildren(...(this.empty ? [h("li", { class: "empty" }, this.empty)] : []));
      return;
    }
    this.measure();
    const low = (at + 1) * this.height - Math.max(box.clientHeight, this.height);
    this.draw(at < 0 ? box.scrollTop : clamp(box.scrollTop, low, at * this.height));
  }

  /** The height of a line. */
  measure() {
    if (this.height) return;
    this.box.replaceChildren(this.row(0));
    this.height = /** @type {Element} */ (this.box.firstElementChild).getBoundingClientRect().height;
  }

  /** The lines in sight of a place of the scroll bar, and some around them. */
  rangeAt(scroll) {
    const { box, height, items } = this, count = Math.ceil(Math.max(box.clientHeight, LEAST_SHOWN_PX) / height) + 2 * MARGIN;
    const first = clamp(Math.floor(scroll / height) - MARGIN, 0, Math.max(items.length - count, 0));
    return [first, Math.min(first + count, items.length)];
  }

  /** Makes the lines again. */
  draw(scroll = this.box.scrollTop) {
    const { box, items } = this;
    if (!items.length || !this.height) return; // none, or not in sight yet
    const focused = this.focusedRow(), [first, last] = this.range = this.rangeAt(scroll);
    const rows = Array.from({ length: last - first }, (_, i) => this.row(first + i));
    rows[0].style.marginTop = `${first * this.height}px`;
    rows[rows.length - 1].style.marginBottom = `${(items.length - last) * this.height}px`;
    box.replaceChildren(...rows);
    box.scrollTop = scroll;
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
