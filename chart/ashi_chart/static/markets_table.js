/**
 * A table of thousands of rows, of which only those in sight are in the document: they lie between two spaces that are
 * as high as all the others would be. A row belongs to a symbol as long as it is in sight.
 */

const BEYOND_ROWS = 8; // on either side of what is in sight, so that a flick of the wheel meets no blank

export class VirtualTable {
  /**
   * @param {HTMLElement} scroller  what scrolls
   * @param {HTMLTableElement} table  with a tbody for the rows between two for the spaces
   * @param {() => HTMLTableRowElement} makeRow
   * @param {(element: HTMLTableRowElement, symbol: string) => void} fillRow  called when a row comes into sight, and by `refresh`
   */
  constructor(scroller, table, makeRow, fillRow) {
    this.scroller = scroller;
    this.table = table;
    [this.above, this.body, this.below] = [...table.tBodies];
    this.makeRow = makeRow;
    this.fillRow = fillRow;
    /** @type {string[]} */
    this.symbols = [];
    /** @type {Map<string, HTMLTableRowElement>} */
    this.shown = new Map();
    /** @type {HTMLTableRowElement[]} */
    this.spare = [];
    this.rowHeight = 0;
    /** Called when other rows are in sight, or in other places. */
    this.onRendered = () => {};
    scroller.addEventListener("scroll", () => this.#soon(), { passive: true });
    new ResizeObserver(() => {
      this.rowHeight = 0;
      this.#soon();
    }).observe(scroller);
  }

  /** Show these symbols, in this order. */
  show(symbols) {
    this.symbols = symbols;
    this.table.setAttribute("aria-rowcount", String(symbols.length + 1));
    this.render();
  }

  /** Fill the rows in sight of these symbols anew, or all. */
  refresh(symbols = this.shown.keys()) {
    for (const symbol of symbols) {
      const element = this.shown.get(symbol);
      if (element) {
        this.fillRow(element, symbol);
      }
    }
  }

  /** Bring the row of this place into sight. */
  reveal(place) {
    const head = this.table.tHead.getBoundingClientRect().height;
    const height = this.#height();
    const top = place * height;
    const room = this.scroller.clientHeight - head;
    if (top < this.scroller.scrollTop) {
      this.scroller.scrollTop = top;
    } else if (top + height > this.scroller.scrollTop + room) {
      this.scroller.scrollTop = top + height - room;
    }
    this.render();
  }

  /** How many whole rows are in sight. */
  get rowsInSight() {
    const head = this.table.tHead.getBoundingClientRect().height;
    return Math.max(1, Math.floor((this.scroller.clientHeight - head) / this.#height()));
  }

  render() {
    const height = this.#height();
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / height) - BEYOND_ROWS);
    const count = Math.ceil(this.scroller.clientHeight / height) + 2 * BEYOND_ROWS;
    const start = Math.max(0, Math.min(first, this.symbols.length - count));
    const end = Math.min(this.symbols.length, start + count);
    const wanted = this.symbols.slice(start, end);
    this.#letGo(new Set(wanted));
    let next = this.body.firstElementChild;
    wanted.forEach((symbol, index) => {
      const element = this.shown.get(symbol) ?? this.#take(symbol);
      element.setAttribute("aria-rowindex", String(start + index + 2)); // the head is the first
      if (element === next) {
        next = next.nextElementSibling;
      } else {
        this.body.insertBefore(element, next);
      }
    });
    space(this.above, start * height);
    space(this.below, (this.symbols.length - end) * height);
    this.onRendered();
  }

  #letGo(wanted) {
    for (const [symbol, element] of this.shown) {
      if (!wanted.has(symbol)) {
        if (element.contains(document.activeElement)) {
          this.scroller.focus({ preventScroll: true }); // keys go on from the same place
        }
        this.shown.delete(symbol);
        element.remove();
        this.spare.push(element);
      }
    }
  }

  #take(symbol) {
    const element = this.spare.pop() ?? this.makeRow();
    this.shown.set(symbol, element);
    this.fillRow(element, symbol);
    return element;
  }

  #height() {
    if (this.rowHeight === 0) {
      const [sample] = this.shown.values();
      const element = sample ?? this.body.appendChild(this.makeRow());
      this.rowHeight = element.getBoundingClientRect().height || 40;
      if (!sample) {
        element.remove();
      }
    }
    return this.rowHeight;
  }

  #soon() {
    if (!this.due) {
      this.due = requestAnimationFrame(() => {
        this.due = 0;
        this.render();
      });
    }
  }
}

function space(body, height) {
  body.hidden = height === 0;
  body.rows[0].cells[0].style.height = `${height}px`;
}
