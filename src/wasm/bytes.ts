/** Byte strings of the binary format: little-endian, integers in LEB128. */
export class Bytes {
  private data = new Uint8Array(256);
  length = 0;

  private room(extra: number): void {
    if (this.length + extra <= this.data.length) return;
    const grown = new Uint8Array(Math.max(this.data.length * 2, this.length + extra));
    grown.set(this.data.subarray(0, this.length));
    this.data = grown;
  }
  byte(value: number): this {
    this.room(1);
    this.data[this.length++] = value;
    return this;
  }
  bytes(values: ArrayLike<number>): this {
    this.room(values.length);
    this.data.set(values, this.length);
    this.length += values.length;
    return this;
  }
  /** Unsigned LEB128, up to 2^53. */
  unsigned(value: number): this {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.byte((rest % 128) | 128);
    return this.byte(rest);
  }
  /** Signed LEB128 of a 32- or 64-bit integer. */
  signed(value: number | bigint): this {
    let rest = BigInt(value);
    for (;;) {
      const low = Number(rest & 127n);
      rest >>= 7n;
      if ((rest === 0n && low < 64) || (rest === -1n && low >= 64)) return this.byte(low);
      this.byte(low | 128);
    }
  }
  f32(value: number): this {
    return this.bytes(new Uint8Array(new Float32Array([value]).buffer));
  }
  f64(value: number): this {
    return this.bytes(new Uint8Array(new Float64Array([value]).buffer));
  }
  /** UTF-8 with its length in front. */
  text(value: string): this {
    return this.counted(new TextEncoder().encode(value));
  }
  /** Bytes with their length in front. */
  counted(content: Uint8Array): this {
    return this.unsigned(content.length).bytes(content);
  }
  take(): Uint8Array {
    return this.data.slice(0, this.length);
  }
}
