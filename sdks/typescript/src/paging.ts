/** Pages of a list, and the items of all of them. */

/** A page as the gateway sends it, with what leads to the next. */
export interface WirePage<Item> {
  data: Item[];
  has_more: boolean;
  /** The cursor of a list: `after` of the next page. */
  last_id?: string | null;
  /** The cursor of a usage report: `page` of the next page. */
  next_page?: string | null;
}

/** One page of a list. Iterate it for the items of this and all following pages. */
export class Page<Item> implements AsyncIterable<Item> {
  /** The items of this page. */
  readonly data: Item[];
  /** Whether there is another page. */
  readonly hasMore: boolean;
  readonly #next: () => Promise<Page<Item>>;

  private constructor(wire: WirePage<Item>, next: () => Promise<Page<Item>>) {
    this.data = wire.data;
    this.hasMore = wire.has_more;
    this.#next = next;
  }

  /** @internal */
  static async fetch<Item>(
    query: object,
    get: (query: object) => Promise<WirePage<Item>>,
  ): Promise<Page<Item>> {
    const wire = await get(query);
    const cursor = "next_page" in wire ? { page: wire.next_page } : { after: wire.last_id };
    return new Page(wire, () => Page.fetch({ ...query, ...cursor }, get));
  }

  /** Returns the next page, or null after the last. */
  async nextPage(): Promise<Page<Item> | null> {
    return this.hasMore ? this.#next() : null;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void> {
    for (let page: Page<Item> | null = this; page; page = await page.nextPage()) yield* page.data;
  }
}
