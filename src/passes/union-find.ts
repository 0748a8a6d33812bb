/** Things that belong together, each class known by one of its members. */
export class UnionFind<T> {
  private readonly parent = new Map<T, T>();

  find(item: T): T {
    let root = item;
    for (let up = this.parent.get(root); up !== undefined; up = this.parent.get(root)) root = up;
    // everything on the way points to the root from now on
    for (let at = item; at !== root;) {
      const up = this.parent.get(at)!;
      this.parent.set(at, root);
      at = up;
    }
    return root;
  }

  join(a: T, b: T): void {
    const [p, q] = [this.find(a), this.find(b)];
    if (p !== q) this.parent.set(q, p);
  }
}
